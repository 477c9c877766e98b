"""Mathematical data sets as they are published: references, self-grading, written answers, and worked solutions."""

import json

import pytest

from tests.harness import REPOSITORY
from workflow_scripts import tasks
from workflow_scripts.config.sections import ColdStart, Prompts
from workflow_scripts.construct_sft import check_solutions
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.formats import has_worked_answers
from workflow_scripts.core.records import read_records
from workflow_scripts.core.workers import Workers
from workflow_scripts.freeze_prompts import freeze

GSM8K = REPOSITORY / "tests/data/gsm8k.jsonl"  # rows of openai/gsm8k (MIT; tests/data/gsm8k.LICENSE)

# (columns as published, the reference that is frozen)
PUBLISHED = {
    "gsm8k": ({"question": "Q?", "answer": "It is 9 * 2 = <<9*2=18>>18.\n#### 18"}, "18"),
    "gsm8k with thousands": ({"question": "Q?", "answer": "So <<2*900=1800>>1,800.\n#### 1,800"}, "1,800"),
    "MATH": (
        {
            "problem": "Q?",
            "level": "Level 5",
            "type": "Algebra",
            "solution": "First $x = \\boxed{2}$ fails. Thus $\\boxed{\\frac{3}{\\sqrt{2}}}$.",
        },
        "\\frac{3}{\\sqrt{2}}",
    ),
    "MATH-500": (
        {"problem": "Q?", "solution": "So $\\boxed{1}$.", "answer": "\\left( 3, \\pi \\right)"},
        None,
    ),
    "AutoCode's seed data": ({"q": "Q?", "a": "It is 2.\nThe answer is: 2", "s": "MetaMath", "gold": "2"}, "2"),
    "AutoCode's evaluation": ({"question": "Q?", "answer": "18"}, "18"),
    "AutoCode's inference": ({"question": "Q?", "gold_list": ["3.50", 3.5]}, "3.50"),
    "MetaMath": ({"question": "Q?", "answer": "Two and two are four.\nThe answer is: 4"}, "4"),
    "a number": ({"question": "Q?", "answer": 18}, "18"),
    "words": ({"question": "Q?", "answer": "every other week"}, "every other week"),
}


def frozen(folder, records: list[dict], **source) -> tuple[list[dict], list[dict]]:
    """Return the prompts that a file of these records gives, and the rejects."""
    file = folder / "published.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    section = Prompts.model_validate({"eval": {"file": str(file)} | source})
    freeze(tasks.load("math", "Prompts"), section, 0, folder / "prompts", tasks.load("math", "Grading"))
    good = list(read_records(folder / "prompts/eval.parquet"))
    return good, list(read_records(folder / "prompts/rejects.jsonl"))


@pytest.fixture(scope="module")
def run():
    with Workers() as running:
        yield running


def is_right(answer: str, reference: str, run) -> bool:
    return tasks.load("math", "Grading").grade({"answer": answer, "reference": reference}, run)["reward"] == 1


# ---------------------------------------------------------------- references


@pytest.mark.parametrize("name", PUBLISHED)
def test_references_as_published_become_final_answers(tmp_path, name):
    record, reference = PUBLISHED[name]
    [prompt], rejects = frozen(tmp_path, [record])

    assert prompt["question"] == "Q?"
    assert prompt["reference"] == (reference or record["answer"])
    assert not rejects
    assert prompt["level"] == record.get("level", "eval")


def test_every_row_of_gsm8k_can_be_answered_right(tmp_path, run):
    rows = list(read_records(GSM8K))
    prompts, rejects = frozen(tmp_path, rows)

    assert len(prompts) == len(rows) == 40
    assert not rejects
    for row, prompt in zip(rows, prompts):
        reference = prompt["reference"]
        assert "#" not in reference
        for answer in (row["answer"], f"The answer is {reference}.", f"So it is $\\boxed{{{reference}}}$."):
            assert is_right(answer, reference, run), (answer, reference)
        assert not is_right(f"The answer is {reference}1.", reference, run)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"answer": "Janet sells nine eggs.\nShe gets two dollars each."}, "worked solution without a marked final"),
        ({"answer": " ".join(["word"] * 30)}, "worked solution without a marked final"),
        ({"answer": "\\frac{1}{2"}, "no answer can match the reference"),
        ({"answer": "$"}, "no answer can match the reference"),
        ({"answer": "It is so.\n####"}, "no answer"),
        ({"answer": None}, "no answer"),
    ],
)
def test_references_that_no_answer_can_match_are_rejects(tmp_path, record, reason):
    good, rejects = frozen(tmp_path, [{"question": "Q?"} | record, {"question": "R?", "answer": "1"}])

    assert [prompt["question"] for prompt in good] == ["R?"]
    assert reason in rejects[0]["reason"]


def test_a_key_that_the_config_names_counts(tmp_path):
    record = {"question": "no", "problem": "Q?", "answer": "1", "result": "2"}
    [prompt], _ = frozen(tmp_path, [record], question_key="problem", answer_key="result")
    assert (prompt["question"], prompt["reference"]) == ("Q?", "2")

    with pytest.raises(BadInput, match=r"has no 'results', only .*prompts\.eval\.question_key"):
        frozen(tmp_path, [record], answer_key="results")


# ---------------------------------------------------------------- written answers

RIGHT = r"""
18 | The answer is 18.
18 | The answer is 18
18 | the answer is: 18
18 | The final answer is $18$.
18 | The final answer is $18. I hope it is correct.
18 | The answer is $18.
18 | The answer is \$18.
18 | The answer is $18.00
18 | The answer is 18.0.
18 | The answer is 18.00 dollars.
18 | The answer is 18 dollars per day.
18 | The answer is **18**.
18 | The answer is **$18**.
18 | The answer is \boxed{18}.
18 | Thus we get $\boxed{18}$.
18 | $\boxed{\$18}$
18 | $\boxed{18.0}$
18 | $\boxed{18\text{ dollars}}$
18 | $\boxed{18 \text{ eggs}}$ are left over.
18 | \boxed{x = 18}
18 | \[ \boxed{18} \]
18 | She makes 9 * 2 = <<9*2=18>>18 dollars.¶#### 18
18 | #### 18
18 | #### $18
18 | Janet makes $18 every day.
18 | So 16 - 3 - 4 = 9 and 9 * 2 = 18
18 | The answer is:¶18
18 | The answer is equal to 18.
18 | The result is 18.
18 | The answer is 18, because she sells 9 eggs for 2 dollars each.
18 | First I thought that the answer is 17. But the answer is 18.
18 | I first had \boxed{17}, but it is \boxed{18}.
18.0 | The answer is 18.
1,800 | The answer is 1800.
1,800 | The answer is 1,800.
1800 | The answer is 1,800 meters.
1800 | \boxed{1,800}
1800 | \boxed{1{,}800}
1800 | The answer is $1,800.00.
1000000 | The answer is 1,000,000.
-5 | The answer is -5.
-5 | \boxed{-5}
-5 | The answer is −5.
0 | The answer is 0.
25 | The answer is 25%.
25 | \boxed{25\%}
25% | The answer is 25%.
25% | The answer is 25
1/2 | The answer is 1/2.
1/2 | The answer is 0.5.
1/2 | \boxed{\frac{1}{2}}
1/2 | \boxed{\dfrac12}
\frac{1}{2} | The answer is 1/2.
\frac{3}{4} | \boxed{0.75}
-\frac{1}{2} | \boxed{-\frac{1}{2}}
-\frac{1}{2} | \boxed{-0.5}
1\frac{1}{2} | \boxed{\frac{3}{2}}
3.14 | The answer is approximately 3.14.
3.14159 | The answer is 3.141593.
2\sqrt{2} | \boxed{\sqrt{8}}
x+1 | \boxed{1+x}
(1, 2) | \boxed{(1,2)}
\left(3,\frac{\pi}{2}\right) | \boxed{(3, \frac{\pi}{2})}
90^\circ | \boxed{90}
\text{Tuesday} | \boxed{Tuesday}
Tuesday | The answer is Tuesday.
10^{5} | \boxed{100000}
"""

WRONG = r"""
18 | The answer is 17.
18 | The answer is 18.5.
18 | The answer is 180.
18 | The answer is -18.
18 | The answer is 1/18.
18 | \boxed{81}
18 | The answer is 18. No, the answer is 19.
18 | I do not know.
18 | 18 is what I thought first, but the answer is 9.
1,800 | The answer is 1.8.
1,800 | The answer is 1.
25 | The answer is 0.26.
1/2 | The answer is 1.
1/2 | The answer is 2.
\frac{3}{4} | \boxed{\frac{4}{3}}
3.14159 | The answer is 3.2.
(1, 2) | \boxed{(2,1)}
x+1 | \boxed{x-1}
Tuesday | The answer is Monday.
2\sqrt{2} | \boxed{\sqrt{2}}
"""


def pairs(text: str) -> list[tuple[str, str]]:
    """Return (reference, answer) of each line; ¶ is a line break."""
    lines = [line.split(" | ") for line in text.strip().splitlines()]
    return [(reference, answer.replace("¶", "\n")) for reference, answer in lines]


def test_written_answers_that_are_right_count(run):
    assert len(pairs(RIGHT)) >= 60
    assert [pair for pair in pairs(RIGHT) if not is_right(pair[1], pair[0], run)] == []


def test_written_answers_that_are_wrong_do_not(run):
    assert [pair for pair in pairs(WRONG) if is_right(pair[1], pair[0], run)] == []


# ---------------------------------------------------------------- the cold start


def examples(folder, records: list[dict], **keys) -> list[dict]:
    """Return the worked examples of a cold start from these records."""
    file = folder / "solved.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    section = ColdStart(file=str(file), **keys).model_dump(mode="json")
    assert has_worked_answers(section)
    return list(tasks.load("math", "ColdStart").examples(section, 0))


@pytest.mark.parametrize(
    ("record", "keys"),
    [
        ({"q": "Q?", "a": "It is 2.", "s": "MetaMath", "gold": "2"}, {}),
        ({"question": "Q?", "answer": "It is 2.\n#### 2"}, {}),
        ({"problem": "Q?", "solution": "It is $\\boxed{2}$.", "answer": "2"}, {}),
        ({"question": "Q?", "solution": "It is 2."}, {}),
        ({"x": "Q?", "question": "no", "y": "It is 2."}, {"question_key": "x", "solution_key": "y"}),
    ],
)
def test_the_cold_start_learns_solutions(tmp_path, record, keys):
    [example] = examples(tmp_path, [record], **keys)
    assert example["question"] == "Q?"
    assert example["pieces"][0][0].startswith("It is")


def test_a_row_without_a_solution_is_left_out_and_a_wrong_key_stops(tmp_path):
    rows = examples(tmp_path, [{"q": "Q?", "a": "It is 2."}, {"q": "R?", "a": None}])
    assert [row.get("fault") for row in rows] == [None, "a should be text that is not empty"]

    with pytest.raises(BadInput, match=r"no column 'solved'.*cold_start\.solution_key; its columns are a, q"):
        examples(tmp_path, [{"q": "Q?", "a": "It is 2."}], question_key="q", solution_key="solved")


def test_labels_are_no_solutions(capsys):
    labels = [{"question": f"Q{i}?", "answer": ("MetaMath", "MMOS")[i % 2]} for i in range(300)]
    with pytest.raises(BadInput, match="300 rows have only 2 different solutions, such as 'MMOS'"):
        check_solutions(labels, "seed.json")

    check_solutions([row | {"answer": f"It is {i}."} for i, row in enumerate(labels)], "seed.json")
    assert capsys.readouterr().err.count("example: ") == 3
