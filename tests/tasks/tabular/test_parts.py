"""The parts of the task: prompts, grading, selection and evaluation."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from tests.harness import Copy
from tests.tasks.tabular.people import table
from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.config.sections import Data
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_text
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular import gen_synsft
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.schemas import as_text, write_csv

SETTINGS = Data().model_dump(mode="json")


# ---------------------------------------------------------------- prompts


def test_prompts_are_frozen_with_columns_that_parquet_holds(tmp_path):
    schema, rows = table()
    splits = {}
    for split, positions in (("train", range(0, 20)), ("eval", range(20, 30))):
        write_jsonl(tmp_path / f"{split}.jsonl", gen_synsft.prompts(schema, rows, positions, split, 0))
        splits[split] = {"file": str(tmp_path / f"{split}.jsonl"), "limit": None, "count": None}

    task = tasks.load("tabular", "Prompts")
    freeze_prompts.freeze(task, splits | {"pool": None}, 0, tmp_path / "prompts")
    frozen = list(read_records(tmp_path / "prompts/train.parquet"))
    assert [prompt["row_number"] for prompt in frozen] == list(range(20))

    for prompt in frozen:
        shown = [as_text(rows[number]) for number in prompt["examples"]]
        assert prompt["question"].splitlines()[1:-1] == shown
        assert as_text(rows[prompt["row_number"]]) not in shown
        assert prompt["reference"] is None
        assert prompt["level"] == "mine"
    freeze_prompts.check_edited(task, "train.parquet", "train", "nowhere.parquet", frozen)


@pytest.mark.parametrize("examples", [None, [], [1, "2"], "[1, 2]"])
def test_a_prompt_needs_the_numbers_of_its_examples(examples):
    task = tasks.load("tabular", "Prompts")
    prompt = {"id": "p", "question": "q", "level": "mine", "reference": None, "row_number": 0, "examples": examples}
    with pytest.raises(BadInput, match=r"train\.parquet, row 0 \(id p\): no examples"):
        freeze_prompts.check_edited(task, "train.parquet", "train", "nowhere.parquet", [prompt])


# ---------------------------------------------------------------- grading


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Return the files of a table: schema, train and test."""
    schema, rows = table(90)
    write_text(tmp_path / "schema.json", schema.model_dump_json())
    write_csv(tmp_path / "train.csv", schema, rows[:60])
    write_csv(tmp_path / "test.csv", schema, rows[60:])
    return {
        "schema": str(tmp_path / "schema.json"),
        "train": str(tmp_path / "train.csv"),
        "test": str(tmp_path / "test.csv"),
    }


@pytest.fixture
def grading(files):
    return tasks.load("tabular", "Grading", files={"schema": files["schema"]})


def graded(grading, text: str, **fields):
    answer = {"answer": text, "examples": [0, 1, 2]} | fields
    return answer | grading.grade(answer, None)


def test_a_row_is_rewarded_and_explained(grading):
    row = table()[1][0]
    good = graded(grading, f"Here: {as_text(row)}")
    bad = graded(grading, "no row")
    assert (good["reward"], good["status"], good["row"]) == (1.0, "SUCCESS", row)
    assert (bad["reward"], bad["status"], bad["row"]) == (0.0, "INVALID_ANSWER", None)
    assert grading.summary([good, bad], []) == {"SUCCESS": 0.5, "INVALID_ANSWER": 0.5, "n": 2}


IDENTITIES = """
import json
from workflow_scripts import tasks
from workflow_scripts.core.running.code import code_identity

parts = {"grade": "Grading", "generate": "Conversation", "freeze_prompts": "Prompts", "evaluate": "Evaluation"}
identities = {}
for stage, part in parts.items():
    identities[stage] = code_identity(f"workflow_scripts.{stage}:main", tasks.root("tabular", part))
for stage in ("split_tables", "gen_synsft", "gen_sftfed", "merge_models"):
    identities[stage] = code_identity(f"workflow_scripts.tasks.tabular.{stage}:main")
print(json.dumps(identities))
"""


def test_a_changed_comparison_in_grading_changes_the_code_of_grading_only(tmp_path):
    copy = Copy(tmp_path / "copy")

    def identities() -> dict[str, str]:
        command = [sys.executable, "-c", IDENTITIES]
        return json.loads(subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, check=True).stdout)

    before = identities()
    edit = ("max(counts.values(), default=0) > 1", "max(counts.values(), default=0) > 2")
    copy.edit("workflow_scripts/tasks/tabular/extraction.py", *edit)
    after = identities()
    assert {stage for stage in before if before[stage] != after[stage]} == {"grade"}


# ---------------------------------------------------------------- selection


@pytest.fixture
def select(tmp_path):
    """Return a function: the pairs that are selected among answers of (status, score, further fields)."""

    def select(*answers, pairs=1000, seed=0):
        kept = {"prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos"}
        records = []
        scores = []
        for number, (status, score, *fields) in enumerate(answers):
            uid = f"u{number}"
            records.append(
                kept | {"uid": uid, "answer": f"t{number}", "status": status, "reward": float(status == "SUCCESS")}
            )
            score_line = {"uid": uid, "score": score, "likelihood": score, "label": "ill"}
            scores.append(score_line | (fields[0] if fields else {}))

        write_jsonl(tmp_path / "scores.jsonl", scores)
        entry = {"id": "q", "question": "question", "reference": None, "level": "mine", "prompt_text": "r"}
        metas = {"auto": {"q": entry | {"answers": records}}}
        selection = tasks.load("tabular", "Selection", {"pairs": pairs}, {"scores": str(tmp_path / "scores.jsonl")})
        rows, dropped = selection.select(metas, SETTINGS, seed, None)

        chosen, rejected = rows[::2], rows[1::2]
        assert [row["advantage"] for row in chosen] == [1.0] * len(chosen)
        assert [row["advantage"] for row in rejected] == [-1.0] * len(rejected)
        assert [row["pair"] for row in chosen] == [row["pair"] for row in rejected]
        assert len({row["uid"] for row in rows}) == len(rows)
        assert all(row["reward"] == float(row["status"] == "SUCCESS") for row in rows)
        return {(a["source"], b["source"], a["kind"]) for a, b in zip(chosen, rejected, strict=True)}, dropped

    return select


def test_better_status_or_higher_gain_is_preferred(select):
    pairs, dropped = select(("SUCCESS", 0.1), ("SUCCESS", 0.3), ("MISSING_KEY", None), ("SUCCESS", 0.1))
    assert pairs == {
        ("u1", "u0", "score"),
        ("u1", "u3", "score"),
        ("u0", "u2", "status"),
        ("u1", "u2", "status"),
        ("u3", "u2", "status"),
    }
    assert dropped == {"pair of equal worth": 1}


def test_rows_of_different_labels_are_not_compared(select):
    pairs, dropped = select(("SUCCESS", 0.1), ("SUCCESS", 0.3, {"label": "well"}), ("MISSING_KEY", None))
    assert pairs == {("u0", "u2", "status"), ("u1", "u2", "status")}
    assert dropped == {"pair of different labels": 1}


def test_a_duplicate_loses_to_a_row_and_wins_against_nothing(select):
    pairs, dropped = select(("SUCCESS", None), ("SUCCESS", -0.5), ("REDUNDANT_KEY", None))
    assert pairs == {("u1", "u0", "status"), ("u1", "u2", "status")}
    assert dropped == {"pair that a duplicate of a training row would win": 1}


def test_equal_scores_are_told_apart_by_likelihood(select):
    pairs, _ = select(("SUCCESS", 0.03, {"likelihood": -0.5}), ("SUCCESS", 0.03, {"likelihood": -0.2}))
    assert pairs == {("u1", "u0", "score")}


def test_small_gains_count_for_labels_and_not_for_quantities(select):
    def winner(gain, label):
        first = {"likelihood": -0.5, "label": label}
        second = {"likelihood": -0.2, "label": label}
        [(chosen, _, kind)], _ = select(("SUCCESS", gain, first), ("SUCCESS", 0.0, second))
        assert kind == "score"
        return chosen

    assert winner(0.03, "ill") == "u0"
    assert winner(0.03, None) == "u1"
    assert winner(0.13, None) == "u0"


def test_prompts_without_a_good_answer_teach_nothing(select):
    pairs, dropped = select(("MISSING_KEY", None), ("INVALID_ANSWER", None))
    assert pairs == set()
    assert dropped == {"prompt without a good answer": 1}


def test_too_many_pairs_are_drawn_from_by_the_seed(select):
    many = [("SUCCESS", number / 10) for number in range(10)]
    pairs, dropped = select(*many, pairs=7)
    assert len(pairs) == 7
    assert dropped == {"pair beyond tabular.pairs": 38}
    assert pairs == select(*many, pairs=7)[0] != select(*many, pairs=7, seed=1)[0]


def test_prompts_are_drawn_from_in_the_order_of_their_questions(tmp_path):
    kept = {"prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos"}
    metas = {}
    scores = []
    for prompt_id, question in (("1", "b"), ("2", "a")):
        entry = {"id": prompt_id, "question": question, "reference": None, "level": "mine", "prompt_text": "r"}
        answers = []
        for score in (0.1, 0.2):
            uid = f"{prompt_id}.{score}"
            answers.append(kept | {"uid": uid, "answer": uid, "status": "SUCCESS", "reward": 1.0})
            scores.append({"uid": uid, "score": score, "likelihood": 0.0, "label": "ill"})
        metas[prompt_id] = entry | {"answers": answers}

    write_jsonl(tmp_path / "scores.jsonl", scores)
    selection = tasks.load("tabular", "Selection", {}, {"scores": str(tmp_path / "scores.jsonl")})
    rows, _ = selection.select({"auto": metas}, SETTINGS, 0, None)
    assert [row["prompt_id"] for row in rows] == ["2", "2", "1", "1"]


def test_answers_without_a_score_are_an_error(tmp_path):
    write_jsonl(tmp_path / "scores.jsonl", [{"uid": "u0", "score": 0.1}])
    metas = {"auto": {"q": {"answers": [{"uid": "u0"}, {"uid": "u1"}]}}}
    selection = tasks.load("tabular", "Selection", {}, {"scores": str(tmp_path / "scores.jsonl")})
    with pytest.raises(BadInput, match=r"scores\.jsonl: 1 of 2 answers have no score, first u1"):
        selection.select(metas, SETTINGS, 0, None)
    with pytest.raises(BadInput, match="needs the scores of the answers"):
        tasks.load("tabular", "Selection").select(metas, SETTINGS, 0, None)


def test_a_meta_file_counts_statuses():
    selection = tasks.load("tabular", "Selection")
    prompt = {"id": "q", "question": "question", "reference": None, "level": "mine", "prompt_text": "r"}
    kept = {"prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos", "reward": 0.0}
    statuses = ["SUCCESS", "MISSING_KEY", "SUCCESS"]
    answers = [
        prompt | kept | {"uid": f"u{i}", "answer": f"t{i}", "status": status} for i, status in enumerate(statuses)
    ]
    meta = selection.construct_meta(answers, dedup=False)
    assert selection.counts(meta) == dict.fromkeys(STATUSES, 0) | Counter(statuses)


# ---------------------------------------------------------------- evaluation


def test_metrics_of_good_rows_of_duplicates_and_of_none(files, grading):
    _, rows = table(90)
    _, fresh = table(40, seed=5)
    good = [graded(grading, as_text(row)) for row in fresh] + [graded(grading, "no row")]
    copied = [graded(grading, as_text(row)) for row in rows[:60]]

    def summarise(answers, **settings):
        return tasks.load("tabular", "Evaluation", {"seed": 0} | settings, files).summarise(answers)

    metrics = summarise(good)
    assert metrics["valid"] == pytest.approx(40 / 41, abs=0.1)
    assert metrics["tstr"] > 0.5
    assert metrics["copies"] == metrics["dropped"] == 0
    assert metrics["by_level"] == {}
    assert set(tasks.part_class("tabular", "Evaluation").metrics) < set(metrics)
    assert set(metrics["by_model"]) == {"synthetic", "real", "bootstrap"}
    assert sum(metrics["statuses"].values()) == pytest.approx(1)

    dropped = summarise(copied)
    assert (dropped["copies"], dropped["dropped"], dropped["tstr"]) == (1.0, 60, 0.0)
    kept = summarise(copied, copies="keep")
    assert (kept["copies"], kept["dropped"], kept["tstr"]) == (1.0, 0, kept["real"])

    none = summarise([graded(grading, "no row")])
    assert (none["valid"], none["tstr"], none["nearest_distance"]) == (0.0, 0.0, None)


def test_anchors_are_not_tested_on(files, grading, tmp_path):
    schema, rows = table(90)
    write_csv(tmp_path / "anchors.csv", schema, rows[60:65])
    answers = [graded(grading, as_text(row)) for row in rows[:5]]

    def tested(files):
        return tasks.load("tabular", "Evaluation", {}, files).summarise(answers)["tested"]

    assert tested(files) - tested(files | {"anchors": str(tmp_path / "anchors.csv")}) >= 5
    write_csv(tmp_path / "anchors.csv", schema, rows[60:])
    with pytest.raises(BadInput, match=r"test\.csv: no rows are left to test on"):
        tested(files | {"anchors": str(tmp_path / "anchors.csv")})
