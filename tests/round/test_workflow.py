"""The workflow as its users run it: real Snakemake, real stages, a model that takes seconds."""

import contextlib
import json
import os
import re
import shutil
import signal
import time

import pandas as pd
import pytest
from conftest import REPOSITORY, Copy, tiny_config

from workflow_scripts.core.records import BadInput, read_json, read_pickle, record_id, shard_of, write_pickle
from workflow_scripts.freeze_prompts import check_edited

NOTHING = "Nothing to be done"
CHECKPOINT = "runs/arithmetic/checkpoints/r1/checkpoint.json"


def jobs(output: str) -> set[str]:
    """The rules that a dry run would run."""
    table = output.rsplit("Job stats:", 1)[-1]
    return {line.split()[0] for line in table.splitlines() if re.fullmatch(r"\w+\s+\d+", line)} - {"total"}


def outputs(output: str, rule: str) -> list[str]:
    """First output of each job of a rule in a dry run."""
    return re.findall(rf"rule {rule}:\n    input: .*\n    output: ([^,\s]+)", output)


def edit_prompts(copy, change, split="train"):
    path = copy.path(f"prompts/{split}.parquet")
    change(pd.read_parquet(path)).to_parquet(path)


def kill(process):
    """kill -9 of everything, as a machine that goes down."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


# ---------------------------------------------------------------- what a round leaves


def test_a_round_leaves_the_designs_files(finished):
    output = (finished.folder / "output.txt").read_text()
    assert "round" in output and "accuracy" in output  # the table at the end
    for name in (
        "prompts/train.parquet", "results/r1/auto/2_0.pkl", "results/r1/trigger/2_1_matchlog.pkl",
        "meta/r1_auto_q2responses_arithmetic.pkl", "meta/r1_trigger_q2responses_arithmetic.pkl",
        "data/offline_keeptrigger_all_r1_arithmetic.pkl", "data/offline_keeptrigger_all_r1_arithmetic_logp/0.pkl",
        "checkpoints/r1/checkpoint.json", "evaluation/r1.json", "logs/train/r1.log", "benchmarks/train/r1.tsv",
    ):  # fmt: skip
        name = name.replace("_logp/0", "_logp/2_0")
        assert finished.path(name).exists(), name
    figures = read_json(finished.path("evaluation/r1.json"))
    assert set(figures) >= {"round", "accuracy", "code_share", "by_level"}
    assert figures["by_level"]["one_digit"].keys() == {"accuracy", "code_share", "n"}


def test_checkpoints_load_with_transformers(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.path("checkpoints/r1/model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM" and tokenizer.is_fast
    ids = tokenizer("User:What is 3 + 4?\n\nAssistant:", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3).shape[0] == 1


def test_logps_are_per_sampled_token_and_carry_a_passport(finished):
    rows = read_pickle(finished.path("data/offline_keeptrigger_all_r1_arithmetic.pkl"))
    start = read_json(finished.path("checkpoints/r0/checkpoint.json"))
    logps = {}
    for rank in range(2):
        folder = finished.path("data/offline_keeptrigger_all_r1_arithmetic_logp")
        logps |= read_pickle(folder / f"2_{rank}.pkl")
        passport = read_json(folder / f"2_{rank}.json")["passport"]
        assert passport["model"] == start["digest"] and passport["dtype"] == "float32"
    for row in rows:
        assert logps[row["qid"]].dtype == "float32" and len(logps[row["qid"]]) == sum(row["mask"])
        assert row["policy"] == start["digest"]
    history = read_json(finished.path("checkpoints/r1/history.json"))
    assert history[0]["ratio"] == pytest.approx(1, abs=1e-4) and history[0]["foreign"] == 0


def test_programs_outputs_are_masked(finished):
    seen = 0
    for rank in range(2):
        for record in read_pickle(finished.path(f"results/r1/trigger/2_{rank}.pkl")):
            assert len(record["tokens"]) == len(record["mask"])
            seen += 0 in record["mask"]
    assert seen, "no program was run: the tiny model never wrote one"


# ---------------------------------------------------------------- what reruns


def test_a_fresh_clone_lists_what_is_pending_and_why(tmp_path):
    output = Copy(tmp_path / "fresh").snakemake("-n", "round3_checkpoint")
    assert jobs(output) >= {"freeze_prompts", "cold_start", "generate", "grade", "construct_meta", "logp", "train"}
    assert "reason: Missing output files" in output


def test_nothing_is_to_be_done_after_touches_and_comments(fork):
    for path in [*fork.path("").rglob("*"), *(fork.folder / "workflow_scripts").rglob("*.py")]:
        if path.is_file():
            os.utime(path)
    for name in ("workflow_scripts/training/objectives.py", "workflow_scripts/grade.py"):
        with open(fork.folder / name, "a") as file:
            file.write("\n# a comment\n")
    assert NOTHING in fork.snakemake("-n", "round1_checkpoint")


def test_two_copies_of_the_model_answer_as_one(fork, finished, monkeypatch):
    """Each on a (pretended) GPU of its own; GPUs are no params, so that nothing reruns for their number alone."""
    config = tiny_config()
    config["generate"]["gpus"] = 2
    fork.configure(config)
    assert "Nothing to be done" in fork.snakemake("-n", "round1_checkpoint")
    shutil.rmtree(fork.path("ledger/generate"))
    name = "results/r1/auto/2_0.pkl"
    fork.path(name).unlink()
    monkeypatch.setenv("LOCAL_GPUS", "0,1")
    fork.snakemake(f"runs/arithmetic/{name}")
    assert fork.path(name).read_bytes() == finished.path(name).read_bytes()
    assert len(list(fork.path("ledger/generate/r1/auto").glob("2_0.*.jsonl"))) == 2


def test_an_edited_prompt_reruns_its_shard_and_in_it_one_record(fork):
    target = pd.read_parquet(fork.path("prompts/train.parquet"))["id"][3]
    shard = shard_of(target, 2)

    def change(frame):
        frame.loc[3, "question"] = "What is 8 + 9?"
        frame.loc[3, "answer"] = "17"
        return frame

    edit_prompts(fork, change)
    output = fork.snakemake("-n", "round1_checkpoint")
    assert sorted(outputs(output, "generate")) == [
        f"runs/arithmetic/results/r1/{version}/2_{shard}.pkl" for version in ("auto", "trigger")
    ]
    assert f"Updated input files: runs/arithmetic/prompts/shards/train/2_{shard}.txt" in output
    assert "freeze_prompts" not in jobs(output)
    verdict = fork.snakemake("verify", fails=True)
    assert "round 1: stale" in verdict and f"shards/train/2_{shard}.txt changed since" in verdict
    assert "round 0: sound" in verdict

    fork.snakemake(f"runs/arithmetic/results/r1/auto/2_{shard}.pkl")
    log = fork.path(f"logs/generate/r1_auto_2_{shard}.log").read_text()
    done, total = map(int, re.search(r"(\d+) of (\d+) records are in the ledger", log).groups())
    assert total - done == 4  # one prompt, four samples


def test_deleted_and_added_prompts_touch_only_their_shards(fork):
    frame = pd.read_parquet(fork.path("prompts/train.parquet"))
    gone = frame["id"][0]
    edit_prompts(fork, lambda f: f.drop(index=0))
    output = fork.snakemake("-n", "round1_checkpoint")
    assert {path[-5] for path in outputs(output, "generate")} == {str(shard_of(gone, 2))}
    added = next(f"new{i}" for i in range(9) if shard_of(f"new{i}", 2) != shard_of(gone, 2))
    row = {"id": added, "question": "What is 2 + 2?", "answer": "4", "level": "one_digit"}
    frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
    edit_prompts(fork, lambda _: frame)
    output = fork.snakemake("-n", "round1_checkpoint")
    assert {path[-5] for path in outputs(output, "generate")} == {str(shard_of(added, 2))}


def test_prompts_from_a_file_are_watched_at_their_source(fork):
    lines = [json.dumps({"question": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(20)]
    source = fork.folder / "mine.jsonl"
    source.write_text("\n".join([*lines, '{"question": ""}', lines[0]]))
    config = tiny_config()
    config["prompts"]["train"] = {"file": "mine.jsonl", "count": None}
    fork.configure(config)
    targets = [f"runs/arithmetic/results/r1/auto/2_{rank}.pkl" for rank in range(2)]
    fork.snakemake(*targets)
    rejects = [json.loads(line)["reason"] for line in fork.path("prompts/rejects.jsonl").read_text().splitlines()]
    assert rejects == ["no question", "the question occurs before"]
    assert NOTHING in fork.snakemake("-n", *targets)
    changed = {"question": "What is 7 + 2?", "answer": "9"}
    source.write_text("\n".join([*lines[:7], json.dumps(changed), *lines[8:]]))
    shards = {shard_of(record_id(question), 2) for question in ("What is 7 + 1?", "What is 7 + 2?")}
    output = fork.snakemake("-n", *targets)
    assert sorted(outputs(output, "generate")) == [targets[shard] for shard in sorted(shards)]
    fork.snakemake(*targets)
    assert NOTHING in fork.snakemake("-n", *targets)
    source.write_text("{")
    assert "mine.jsonl, line 1: not JSON" in fork.snakemake("-n", *targets, fails=True)


def test_a_reverted_edit_leaves_nothing_to_do(fork):
    original = fork.path("prompts/train.parquet").read_bytes()
    edit_prompts(fork, lambda frame: frame.drop(index=0))
    assert NOTHING not in fork.snakemake("-n", "round1_checkpoint")
    fork.path("prompts/train.parquet").write_bytes(original)
    assert NOTHING in fork.snakemake("-n", "round1_checkpoint")


def test_a_changed_learning_rate_reruns_training_and_what_follows(fork):
    config = tiny_config()
    config["train"]["lr"] = 1e-5
    fork.configure(config)
    output = fork.snakemake("-n", "round1_checkpoint")
    assert jobs(output) == {"train", "generate_eval", "grade", "evaluate", "round1_checkpoint"}
    assert '"lr": 1e-05' in output  # the reason says what changed


def test_a_changed_objective_reruns_training_and_what_follows(fork):
    path = fork.folder / "workflow_scripts/training/objectives.py"
    before = path.read_text()
    path.write_text(before.replace("ratio = tokens.log_ratio().exp()", "ratio = tokens.log_ratio().exp() * 1.0"))
    assert path.read_text() != before
    output = fork.snakemake("-n", "round1_checkpoint")
    assert "cold_start" in jobs(output) and "init_model" not in jobs(output)  # training imports it, generation does not
    assert "workflow_scripts/training/objectives.py" in output


def test_a_changed_grading_stage_grades_again_without_generating_for_it(fork):
    path = fork.folder / "workflow_scripts/grade.py"
    path.write_text(path.read_text().replace("BATCH = 64", "BATCH = 65"))
    output = fork.snakemake("-n", "round1_checkpoint")
    assert {"grade", "construct_meta"} <= jobs(output)
    assert not {"generate", "cold_start", "freeze_prompts"} & jobs(output)
    assert "workflow_scripts/grade.py" in output


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "What is 1 + 1?"}, None),
        ({"answer": None}, "no answer"),
        ({"id": None}, "no id"),
        ({"id": "q2"}, "the id q2 occurs before"),
        ({"question": "Question 2"}, "the question occurs before"),
    ],
)
def test_prompts_edited_by_hand_are_validated(change, reason):
    records = [{"id": f"q{i}", "question": f"Question {i}", "answer": "1", "level": "a"} for i in range(4)]
    records[3] |= change
    with pytest.raises(BadInput, match=rf"train.parquet, row 3 .*{reason}") if reason else contextlib.nullcontext():
        check_edited("train.parquet", "train", "nowhere.parquet", records)


def test_a_fault_made_by_hand_stops_the_dry_run(fork):
    edit_prompts(fork, lambda frame: frame.assign(answer=[None, *frame["answer"][1:]]))
    output = fork.snakemake("-n", "round1_checkpoint", fails=True)
    assert "train.parquet, row 0" in output and "no answer" in output


def test_how_an_engine_is_started_reruns_nothing(fork):
    endpoint = {
        "base_url": "http://127.0.0.1:9/v1",
        "model": "none",
        "budget": 1,
        "prices": {"input": 1, "cached": 1, "output": 1},
    }
    config = tiny_config(python={"vllm": "/nowhere/python"})
    config["generate"] |= {"gpus": 1, "openai": endpoint}
    fork.configure(config)
    assert NOTHING in fork.snakemake("-n", "round1_checkpoint")


def test_more_samples_generate_only_the_new_ones(fork):
    config = tiny_config()
    config["generate"]["auto"]["samples"] = 5
    fork.configure(config)
    fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl")
    log = fork.path("logs/generate/r1_auto_2_0.log").read_text()
    done, total = map(int, re.search(r"(\d+) of (\d+) records are in the ledger", log).groups())
    assert done * 5 == total * 4


# ---------------------------------------------------------------- kill -9


def test_kill_9_in_generate_goes_on_from_the_ledger_to_the_same_digest(finished, tmp_path):
    copy = Copy(tmp_path / "killed", tiny_config())
    shutil.copytree(finished.path("checkpoints"), copy.path("checkpoints"), symlinks=True)
    shutil.rmtree(copy.path("checkpoints/r1"))
    for name in ("prompts", "data/sft_arithmetic.pkl", "data/sft_arithmetic.json"):
        source, place = finished.path(name), copy.path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, place) if source.is_dir() else shutil.copy2(source, place)
    targets = ["runs/arithmetic/results/r1/auto/2_0.pkl", "runs/arithmetic/results/r1/trigger/2_1.pkl"]
    process = copy.start(*targets)
    entered = lambda: list(copy.path("ledger/generate/r1").glob("*/*.jsonl"))  # noqa: E731
    wait_for(lambda: any(path.read_text().count("\n") >= 2 for path in entered()), process)
    kill(process)
    copy.snakemake("--unlock")
    output = copy.snakemake(*targets)
    assert re.search(r"\d+ of \d+ records are in the ledger, going on at record \w+", output)
    for name in targets:
        assert (copy.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name


def test_kill_9_in_training_goes_on_from_its_state_to_the_same_digest(finished, fork):
    before = read_json(fork.path("checkpoints/r1/checkpoint.json"))
    shutil.rmtree(fork.path("checkpoints/r1"))
    process = fork.start(CHECKPOINT)
    wait_for(lambda: len(list(fork.path("state/r1").glob("*/checkpoint-*/complete"))) >= 1, process)
    kill(process)
    assert not fork.path("checkpoints/r1/checkpoint.json").exists()
    fork.snakemake("--unlock")
    output = fork.snakemake(CHECKPOINT)
    assert re.search(r"train: going on from update \d+ of \d+", output)
    assert read_json(fork.path("checkpoints/r1/checkpoint.json")) == before
    assert not list(fork.path("state/r1").glob("*/"))  # no saved states are left


# ---------------------------------------------------------------- verify


def test_verify_names_damage_and_what_is_missing(fork):
    assert "round 1: sound" in fork.snakemake("verify")
    weights = fork.path("checkpoints/r0/model/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    output = fork.snakemake("verify", fails=True)
    assert "round 0: damaged" in output and "checkpoints/r0/model/model.safetensors is not the file" in output
    assert "round 1: stale" in output
    shutil.rmtree(fork.path("checkpoints/r1"))
    assert "round 1: missing" in fork.snakemake("verify", fails=True)


# ---------------------------------------------------------------- answers from files


@pytest.fixture
def imported(tmp_path):
    """A file in AutoCode's own format: what the original's graded results look like."""
    questions = [f"Tom has {i} eggs and finds {i + 1} more. How many are there?" for i in range(30)]
    records = []
    for i, question in enumerate(questions):
        good = i % 3 > 0
        total = 2 * i + 1
        code = f"```python\nprint({i} + {i + 1})\n```\n```output\n{total}\n```\nThere are $\\boxed{{{total}}}$ eggs."
        text = code if i % 2 else f"So he has {2 * i + good} eggs.\nThe answer is $\\boxed{{{2 * i + good}}}$."
        records.append(
            {"question": question, "solution": text, "correct": str(2 * i + 1), "req": f"User:{question}\n\nAssistant:",
             "match": [{"pred": [""], "res": good}], "task": "eggs"}
        )  # fmt: skip
    write_pickle(tmp_path / "results.pkl", records)
    return tmp_path / "results.pkl"


def test_a_round_can_start_from_the_originals_pickles(finished, fork, imported):
    config = tiny_config(results={1: {"auto": [str(imported)]}})
    fork.configure(config)
    output = fork.snakemake(CHECKPOINT)
    assert "no trigger meta: the selection rests on auto answers alone" in output
    assert "rows were not sampled by this policy: their ratio is 1" in output
    checkpoint = read_json(fork.path("checkpoints/r1/checkpoint.json"))
    assert checkpoint["foreign"] == checkpoint["rows"] > 10
    rows = read_pickle(fork.path("data/offline_keeptrigger_all_r1_arithmetic.pkl"))
    assert {row["policy"] for row in rows} == {"foreign"} and any(0 in row["mask"] for row in rows)


def test_an_empty_selection_says_what_to_do(fork, imported):
    records = [record | {"correct": "-1"} for record in read_pickle(imported)]
    write_pickle(imported, records)
    fork.configure(tiny_config(results={1: {"auto": [str(imported)]}}))
    output = fork.snakemake(CHECKPOINT, fails=True)
    assert "error: nothing is left to train on: 30 questions" in output and "Ask easier questions" in output


def test_a_pickle_with_code_in_it_is_refused(fork, imported):
    imported.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    fork.configure(tiny_config(results={1: {"auto": [str(imported)]}}))
    output = fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl", fails=True)
    assert f"error: {imported}: refers to os.system" in output


# ---------------------------------------------------------------- objectives and rows that exist already


def scored(output: str) -> set[str]:
    """The log-prob folders that a dry run would fill, below data/."""
    return set(re.findall(r"output: \S+/data/(\S+)/[12]_0\.pkl", output))


def test_objectives_ask_for_the_log_probs_they_need_and_no_others(tmp_path):
    copy, offline = Copy(tmp_path / "needs"), "offline_keeptrigger_all_r"
    for train, expected in [
        ({"objective": "sft"}, set()),
        ({"objective": "topr"}, {"1_arithmetic_logp", "2_arithmetic_logp"}),
        ({"kl": 0.1}, {"1_arithmetic_logp", "2_arithmetic_logp", "2_arithmetic_ref_logp"}),
        ({"kl": 0.1, "reference": "previous"}, {"1_arithmetic_logp", "2_arithmetic_logp"}),
    ]:
        config = tiny_config()
        copy.configure(config | {"train": config["train"] | train})
        assert scored(copy.snakemake("-n", "round2_checkpoint")) == {offline + name for name in expected}


def test_a_schedule_over_all_rounds_has_an_end(tmp_path):
    config = tiny_config()
    config["train"] |= {"schedule_over": "rounds", "updates_per_round": 4}
    copy = Copy(tmp_path / "schedule", config)
    assert "--rounds 1" in copy.snakemake("-n", "-p", "round1_checkpoint")
    assert "the schedule ends with round 1" in copy.snakemake("-n", "round2_checkpoint", fails=True)


@pytest.mark.slow
def test_preference_pairs_train_rounds_of_dpo(finished, tmp_path):
    pairs = [
        {"prompt": f"What is {a} + {b}.", "chosen": f" The answer is {a + b}.", "rejected": f" It is {a * b}, no, 0."}
        for a in range(2, 8) for b in range(3, 6)
    ]  # fmt: skip
    config = tiny_config(name="pairs", data={"tag": "x", "source": {"file": "pairs.jsonl", "format": "preference"}})
    config["prompts"], config["shards"] = {"eval": {"count": {"one_digit": 4}}}, 1
    config["model"] = {"path": str(finished.path("checkpoints/r0/model"))}
    config["train"] = {"objective": "dpo", "lr": 1e-4, "batch_size": 6, "threads": 1}
    copy = Copy(tmp_path / "pairs", {key: value for key, value in config.items() if key != "cold_start"})
    (copy.folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert scored(copy.snakemake("-n", "round2_checkpoint")) == {"pairs.jsonl_x_scaleonly_r0_logp"}
    copy.snakemake("round2_checkpoint")
    run = copy.folder / "runs/pairs"
    first, second = (read_json(run / f"checkpoints/r{n}/history.json") for n in (1, 2))
    assert first[0]["preferred"] == 0 and first[-1]["margin"] > 0  # no margin before the first update
    assert second[-1]["preferred"] == 1 and second[0]["margin"] > 0  # round 2 is measured against round 0 too
    assert (run / "data/pairs.jsonl").resolve() == (copy.folder / "pairs.jsonl").resolve()
    assert NOTHING in copy.snakemake("-n", "round2_checkpoint")
    (copy.folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs[1:]))
    assert {"import_data", "logp", "train"} <= jobs(copy.snakemake("-n", "round2_checkpoint"))


# ---------------------------------------------------------------- targets, configs and their faults


def test_mistyped_targets_and_keys_are_told_what_would_be_right(tmp_path):
    copy = Copy(tmp_path / "typo")
    assert "did you mean 'round3_checkpoint'?" in copy.snakemake("-n", "roun3_checkpoint", fails=True)
    assert "round7_checkpoint" in copy.snakemake("-n", "round7_checkpoint")
    output = copy.snakemake("-n", "round1_checkpoint", "--config", "sede=3", fails=True)
    assert "config: sede: there is no such key; did you mean 'seed'?" in output


def test_recipes_are_complete_in_themselves(tmp_path):
    copy = Copy(tmp_path / "recipe")
    copy.path("").parent.mkdir(parents=True, exist_ok=True)
    (copy.folder / "data").mkdir()
    for number, name in enumerate(("autocode_seed.json", "math_test.json")):
        record = {"q": f"1 + {number}?", "a": "2", "s": "It is 2.", "gold": str(1 + number)}
        (copy.folder / "data" / name).write_text(json.dumps([record]))
    output = copy.snakemake("-n", "round2_checkpoint", "--configfile", "recipes/math.yaml", "--config", "shards=3")
    assert "runs/math/results/r2/auto/3_2.pkl" in output and "arithmetic" not in output
    partial = tmp_path / "partial.yaml"
    partial.write_text("name: partial\ntask: math\n")
    output = copy.snakemake("-n", "round1_checkpoint", "--configfile", str(partial), fails=True)
    assert "config: prompts: this key is needed" in output  # nothing of config.yaml leaks in


def test_the_slurm_profile_is_found_as_typed():
    assert (REPOSITORY / "slurm").resolve() == (REPOSITORY / "profiles/slurm").resolve()
    assert (REPOSITORY / "local").resolve() == (REPOSITORY / "profiles/local").resolve()
