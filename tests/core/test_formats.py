"""Answers that exist already, in the format of BLEUBERI's inference."""

import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.formats import existing_answers


def test_existing_answers_have_ids_of_any_kind_as_text(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 7, "response": "a"}\n{"id": "8", "response": null}\n')
    assert existing_answers(str(path)) == {"7": "a", "8": ""}


@pytest.mark.parametrize("second", ['{"prompt": "p", "response": "a"}', '{"id": 7, "response": "b"}', '{"id": 8}'])
def test_each_existing_answer_has_an_id_of_its_own(tmp_path, second):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 7, "response": "a"}\n' + second + "\n")
    with pytest.raises(BadInput, match=r"answers\.jsonl, record 2: needs an id of its own"):
        existing_answers(str(path))
