"""The parts of the task: prompts, grading, selection and evaluation."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import Copy
from tests.tasks.tabular.people import table
from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.config.sections import Data
from workflow_scripts.config.sections import Prompts as PromptsSection
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json, write_jsonl, write_text
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular import gen_synsft
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.plot_tables import signal_panel
from workflow_scripts.tasks.tabular.schemas import Schema, as_text, write_csv

SETTINGS = Data().model_dump(mode="json")


# ---------------------------------------------------------------- prompts


def test_prompts_are_frozen_with_columns_that_parquet_holds(tmp_path):
    schema, rows = table()
    splits = {}
    for split, positions in (("train", range(0, 20)), ("eval", range(20, 30))):
        write_jsonl(tmp_path / f"{split}.jsonl", gen_synsft.prompts(schema, rows, positions, split, 0))
        splits[split] = {"file": str(tmp_path / f"{split}.jsonl")}

    task = tasks.load("tabular", "Prompts")
    freeze_prompts.freeze(task, PromptsSection.model_validate(splits), 0, tmp_path / "prompts")
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


def test_a_shard_without_any_row_stops_the_round_and_not_an_evaluation(files, tmp_path):
    answers = [answer_record(number, "none") for number in range(60)]
    for place in ("results/r1/auto", "evaluation/r0"):
        (tmp_path / place).mkdir(parents=True)
        write_pickle(tmp_path / place / "1_0.pkl", answers)

    def grade(place):
        command = [sys.executable, "-m", "workflow_scripts.grade", "--task", "tabular", "--task-file"]
        command += [f"schema={files['schema']}", "--results", str(tmp_path / place / "1_0.pkl")]
        command += ["--output", str(tmp_path / place / "1_0_matchlog.pkl")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    stopped = grade("results/r1/auto")
    assert stopped.returncode
    assert "none of 60 answers is a row of the table ({'INVALID_ANSWER': 60})" in stopped.stderr
    assert grade("evaluation/r0").returncode == 0


def answer_record(number: int, text: str) -> dict:
    """Return the record of an answer as the stage generate writes it."""
    return {
        "uid": f"u{number}", "id": "q", "question": "q", "reference": None, "level": "mine", "prompt_text": "q",
        "answer": text, "prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos",
    }  # fmt: skip


def test_with_several_tables_the_level_names_the_schema(files):
    schema = Schema.model_validate_json(Path(files["schema"]).read_text())
    other = schema.model_copy(update={"columns": [column for column in schema.columns if column.name != "Age"]})
    write_text(Path(files["schema"]).with_name("other.json"), other.model_dump_json())
    both = {"schema.mine": files["schema"], "schema.other": str(Path(files["schema"]).with_name("other.json"))}
    grading = tasks.load("tabular", "Grading", files=both)
    text = '{"blood pressure": 120.0, "Pain/Type": "none", "status": "well"}'

    assert "level" in grading.depends_on
    assert grading.grade({"answer": text, "level": "mine"}, None)["status"] == "MISSING_KEY"
    assert grading.grade({"answer": text, "level": "other"}, None)["status"] == "SUCCESS"


# ---------------------------------------------------------------- selection


@pytest.fixture
def select(tmp_path):
    """Return a function: the pairs that are selected among answers of (status, score, further fields)."""

    def select(*answers, pairs=1000, seed=0, shares=None, signals=(), min_signal=0.0):
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
        files = {"scores": str(tmp_path / "scores.jsonl")}
        if shares:
            write_json(tmp_path / "prompts.json", {"shares": shares})
            files["prompts"] = str(tmp_path / "prompts.json")
        for fold, signal in enumerate(signals):
            write_json(tmp_path / f"signal_{fold}.json", {"signal": signal})
            files[f"signal_{fold}"] = str(tmp_path / f"signal_{fold}.json")
        selection = tasks.load("tabular", "Selection", {"pairs": pairs, "min_signal": min_signal}, files)
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


def test_chosen_rows_have_the_labels_shares_of_real_rows(select):
    well = {"label": "well"}
    answers = [("SUCCESS", number / 10) for number in range(7)] + [
        ("SUCCESS", number / 10, well) for number in range(4)
    ]
    labels = {f"u{number}": "ill" if number < 7 else "well" for number in range(11)}

    def chosen(**options):
        pairs, dropped = select(*answers, **options)
        return Counter(labels[winner] for winner, _, _ in pairs), dropped["pair beyond the share of its label"]

    assert chosen() == (Counter(ill=21, well=6), 0)
    assert chosen(shares={"ill": 0.5, "well": 0.5}) == (Counter(ill=6, well=6), 15)
    assert chosen(shares={"ill": 0.75, "well": 0.25}) == (Counter(ill=18, well=6), 3)
    assert chosen(shares={"ill": 0.5, "well": 0.5}, pairs=4)[0].total() == 4
    assert chosen(shares={"ill": 0.4, "well": 0.4, "other": 0.2}) == (Counter(ill=6, well=6), 15)


def test_pairs_without_a_label_stay(select):
    unlabelled = {"label": None}
    answers = [("SUCCESS", 0.1), ("MISSING_KEY", None, unlabelled), ("INVALID_ANSWER", None, unlabelled)]

    pairs, dropped = select(*answers, shares={"ill": 1.0})
    assert sorted((winner, loser) for winner, loser, _ in pairs) == [("u0", "u1"), ("u0", "u2"), ("u1", "u2")]
    assert dropped["pair beyond the share of its label"] == 0


def test_without_a_signal_only_the_status_decides(select, capsys):
    answers = [("SUCCESS", 0.1), ("SUCCESS", 0.3), ("MISSING_KEY", None)]
    by_status = {("u0", "u2", "status"), ("u1", "u2", "status")}

    pairs, dropped = select(*answers, signals=(0.1, 0.2), min_signal=0.3)
    assert pairs == by_status
    assert dropped["pair without a signal"] == 1
    assert "signal on held-out real rows is 0.15, below tabular.min_signal 0.3" in "".join(capsys.readouterr())
    assert select(*answers, signals=(0.2, 0.4), min_signal=0.3)[0] == by_status | {("u1", "u0", "score")}


def test_each_table_has_its_own_scores_and_its_own_pairs(tmp_path):
    kept = {"prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos"}
    files = {}
    metas = {}
    for name in ("one", "two"):
        entry = {"id": name, "question": name, "reference": None, "level": name, "prompt_text": "r"}
        answers = []
        scores = []
        for number in range(4):
            uid = f"{name}.{number}"
            answers.append(kept | {"uid": uid, "answer": uid, "status": "SUCCESS", "reward": 1.0})
            scores.append({"uid": uid, "score": number / 10, "likelihood": 0.0, "label": "ill"})
        metas[name] = entry | {"answers": answers}
        write_jsonl(tmp_path / f"{name}.jsonl", scores)
        files[f"scores.{name}"] = str(tmp_path / f"{name}.jsonl")

    selection = tasks.load("tabular", "Selection", {"pairs": 2}, files)
    rows, dropped = selection.select({"auto": metas}, SETTINGS, 0, None)
    assert Counter(row["level"] for row in rows) == {"one": 4, "two": 4}
    assert dropped == {"pair beyond tabular.pairs": 8}


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


def test_several_tables_are_measured_each_and_on_average(files, grading):
    rows = list(read_records(files["train"]))
    answers = []
    for level, number in (("one", 20), ("two", 10)):
        for row in rows[:number]:
            text = json.dumps(row | {"Age": str(int(row["Age"]) + 1)})
            answers.append(graded(grading, text, level=level))
    answers += [graded(grading, "none", level="two") for _ in range(10)]

    both = {f"{name}.{level}": path for name, path in files.items() for level in ("one", "two")}
    metrics = tasks.load("tabular", "Evaluation", files=both).summarise(answers)
    assert set(metrics["by_level"]) == {"one", "two"}
    assert metrics["by_level"]["one"]["valid"] == 1
    assert metrics["by_level"]["two"]["valid"] == 0.5
    assert metrics["valid"] == 0.75
    assert metrics["n"] == 40


def test_the_plot_tells_whether_scores_count():
    weak = [{"signal": 0.1}, {"signal": 0.2}]
    assert signal_panel(weak, 0.3) == {
        "signal of task models, below 0.3: scores do not count": {"model 0": 0.1, "model 1": 0.2}
    }
    assert list(signal_panel(weak, 0.15)) == ["signal of task models, scores count"]
    assert signal_panel([{"signal": None}], 0.3) == {}
