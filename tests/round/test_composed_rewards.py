"""A composed reward in a real run: what its parts cost once, and what a changed weight reruns."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.engines.faulty_proxy import says
from tests.harness import in_ledger, jobs, outputs, tiny_config
from workflow_scripts import combine_rewards, evaluate, report
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.init_model import train_tokenizer

SHARDS = ("2_0", "2_1")


def faults(**changes):
    with pytest.raises(ConfigError) as caught:
        load(tiny_config(**changes))
    return str(caught.value)


def save_reward_model(folder):
    """Write a tiny reward model with random weights."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 3, 300)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **shape)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.long
def test_a_changed_weight_reruns_sums_only(fork):
    save_reward_model(fork.folder / "rm")
    (fork.folder / "rubric.md").write_text("Is the answer polite?")
    config = tiny_config()
    config["generate"]["trigger"] = None

    with says("7") as url:
        judge = {"openai": {"base_url": url, "model": "m", "key_env": None}, "rubric": "rubric.md"}
        config["reward"] = [
            "task",
            {"reward": "length", "weight": 0.25, "options": {"target": 20}},
            {"reward": "reward_model", "model": "rm", "weight": 0.5},
            {"name": "polite", "reward": "judge", "weight": 0.1, "judge": judge},
        ]
        fork.configure(config)
        fork.snakemake("round1_data")

    for shard in SHARDS:
        for row in read_records(fork.path(f"results/r1/auto/{shard}_matchlog.pkl")):
            values = row["rewards"]
            assert values.keys() == {"task", "length", "reward_model", "polite"}
            assert values["task"] == row["grade"]
            assert values["polite"] == pytest.approx(6 / 9)
            expected = row["grade"] + 0.25 * values["length"] + 0.5 * values["reward_model"] + 0.1 * values["polite"]
            assert row["reward"] == pytest.approx(expected)

    rewards = {row["reward"] for row in read_pickle(fork.path("data/offline_small_r1_arithmetic.pkl"))}
    assert len(rewards) > 2  # the round learns from the sums

    config["reward"][1]["weight"] = 0.125
    fork.configure(config)
    sums = {"combine_rewards", "construct_meta", "construct_data", "round1_data"}
    assert jobs(fork.snakemake("-n", "round1_data")) == sums

    config["reward"][1]["options"]["target"] = 10  # another option of a part reruns that part
    fork.configure(config)
    output = fork.snakemake("-n", "round1_data")
    assert jobs(output) == sums | {"reward"}
    assert {Path(path).name for path in outputs(output, "reward")} == {f"{shard}_reward_length.pkl" for shard in SHARDS}

    # A finished value is in the part's own ledger: the judge is gone, and nobody asks it.
    values_of_judge = fork.path("results/r1/auto/2_0_reward_polite.pkl")
    values_of_judge.unlink()
    fork.snakemake(str(values_of_judge.relative_to(fork.folder)))
    done, total = in_ledger(fork.path("logs/reward/results/r1/auto/2_0_polite.log").read_text())
    assert done == total > 0


# ---------------------------------------------------------------- the sum


def graded(count, **fields):
    return [
        {"uid": f"q{i}.0", "id": f"q{i}", "level": "l", "answer": "a", "reward": 1.0} | fields for i in range(count)
    ]


def combine(monkeypatch, tmp_path, values, weights, folder="auto"):
    """Combine parts of the reward of graded answers, and return the answers by uid."""
    output = tmp_path / folder / "sums.pkl"
    output.parent.mkdir(exist_ok=True)
    write_pickle(tmp_path / "graded.pkl", graded(len(values), path="cot", prediction="7"))
    write_manifest(tmp_path / "graded.pkl", [], {}, rows=len(values))
    rows = [{"uid": f"q{i}.0", "value": value, "reason": "no grade"} for i, value in enumerate(values)]
    write_pickle(tmp_path / "part.pkl", rows)
    options = ["--graded", tmp_path / "graded.pkl", "--values", f"part={tmp_path / 'part.pkl'}"]
    options += ["--weights", json.dumps(weights), "--output", output]
    monkeypatch.setattr("sys.argv", ["combine_rewards", *map(str, options)])
    combine_rewards.main()
    return output


def test_undecided_answers_are_not_trained_on(monkeypatch, tmp_path):
    weights = {"task": 1.0, "part": 0.5}
    trained_on = combine(monkeypatch, tmp_path, [0.5, None, -2.0], weights)
    assert {row["uid"]: row["reward"] for row in read_records(trained_on)} == {"q0.0": 1.25, "q2.0": 0.0}
    assert list(read_records(trained_on.with_suffix(".rejects.jsonl"))) == [{"uid": "q1.0", "reason": "part: no grade"}]

    evaluated = combine(monkeypatch, tmp_path, [0.5, None, -2.0], weights, folder="r0")
    assert [row["reward"] for row in read_records(evaluated)] == [1.25, None, 0.0]

    output = tmp_path / "r0.json"
    options = ["--task", "math", "--results", evaluated, "--round", 0, "--output", output]
    monkeypatch.setattr("sys.argv", ["evaluate", *map(str, options)])
    evaluate.main()
    metrics = read_json(output)
    assert metrics["accuracy"] == 1.0  # of the task's own reward
    assert metrics["part part"] == -0.75
    assert metrics["total_reward"] == 0.625
    assert metrics["intervals"]["part part"]["low"] <= -0.75

    monkeypatch.setattr("sys.argv", ["report", "--task", "math", "--run", str(tmp_path)])
    (tmp_path / "evaluation").mkdir()
    output.rename(tmp_path / "evaluation/r0.json")
    report.main()


def test_values_of_other_answers_are_refused(monkeypatch, tmp_path):
    combine(monkeypatch, tmp_path, [0.5, 1.0], {"part": 1.0})
    write_pickle(tmp_path / "graded.pkl", graded(3))
    with pytest.raises(BadInput, match=r"the values of the part part are of other answers: it lacks q2\.0"):
        combine_rewards.main()


# ---------------------------------------------------------------- faults


def test_faults_of_parts_are_found_before_anything_runs(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def politeness(answer, references, record):\n    return 1.0\n")
    broken = tmp_path / "broken.py"
    broken.write_text("def politeness(:\n")
    endpoint = {"base_url": "http://localhost:1/v1", "model": "m"}

    expected = {
        "there is no reward 'lenght'; choose task, bertscore, ": ["lenght"],
        "has no function 'politness'; did you mean 'politeness'?": [f"{own}:politness"],
        "broken.py, line 1: is no Python": [f"{broken}:politeness"],
        "reward.0: there is no file nowhere.py": ["nowhere.py:f"],
        "reward.0: reward_model is computed by a model; give `model`": ["reward_model"],
        "options.targt: reward length has the options target": [{"reward": "length", "options": {"targt": 3}}],
        "options.target: should be int, found 'x'": [{"reward": "length", "options": {"target": "x"}}],
        "options.schema: reward json_schema needs this option": ["json_schema"],
        "there is no file none.json": [{"reward": "json_schema", "options": {"schema": "none.json"}}],
        "reward judge needs the key `judge`": ["judge"],
        "reward task does not use the key `judge`": [{"reward": "task", "judge": {"openai": endpoint}}],
        "there is no file none.md": [{"reward": "judge", "judge": {"openai": endpoint, "rubric": "none.md"}}],
        "there are several parts 'length'; give each a `name`": ["length", "length"],
        "reward bleu_rm combines bleu and rm; list them": ["bleu_rm"],
        "reward: List should have at least 1 item": [],
        "reward.0.weigth: there is no such key; did you mean 'weight'?": [{"reward": "length", "weigth": 1}],
    }
    for message, parts in expected.items():
        assert message in faults(reward=parts), message

    assert "list it as a part" in faults(reward="judge")
    assert "list its parts bleu and rm" in faults(reward="bleu_rm")
    assert "data.advantage sign" in faults(reward=["task", "length"], data={"advantage": "sign"})


def test_one_reward_alone_takes_the_place_of_the_tasks_own():
    config = load(tiny_config(reward="exact"))
    assert [(name, part.reward, part.weight) for name, part in config.reward_parts.items()] == [("exact", "exact", 1.0)]
    assert not load(tiny_config()).reward_parts
