"""Eval sets with sampling or settings of their own: jobs of their own answer them, and others stay as they are."""

import pytest

from tests.harness import NOTHING_TO_DO, jobs, outputs, tiny_config
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import read_records

TARGET = "round0_evaluation"
SHARDS = ("2_0", "2_1")


def config_of(sampling):
    config = tiny_config()
    config["prompts"]["eval"] = {
        "facts": {"count": {"one_digit": 4}},
        "auto": {"count": {"two_digit_sum": 4}, "sampling": sampling},  # named as a version of a round's answers is
    }
    return config


@pytest.mark.long
def test_a_set_with_its_own_sampling_is_answered_apart(fork):
    sampling = {"samples": 4, "temperature": 0.8, "max_tokens": 20}
    fork.configure(config_of(sampling))
    fork.snakemake(TARGET)
    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)

    greedy = [row for shard in SHARDS for row in read_records(fork.path(f"evaluation/r0/{shard}_matchlog.pkl"))]
    sampled = [row for shard in SHARDS for row in read_records(fork.path(f"evaluation/r0/auto/{shard}_matchlog.pkl"))]
    assert sorted(row["set"] for row in greedy) == ["facts"] * 4
    assert sorted(row["set"] for row in sampled) == ["auto"] * 16
    assert max(sum(row["mask"]) for row in sampled) <= 20

    metrics = read_json(fork.path("evaluation/r0.json"))
    assert metrics["n"] == 20
    assert {"avg@4", "pass@2", "pass@4"} <= metrics["by_set"]["auto"].keys()
    assert not [name for name in metrics["by_set"]["facts"] if "@" in name]
    assert not [name for name in metrics if "@" in name]  # the other set has one answer to a question

    # Further samples are further answers of that set, and the other set's answers stay.
    fork.configure(config_of(sampling | {"samples": 6}))
    output = fork.snakemake("-n", TARGET)
    assert jobs(output) == {"generate_eval", "grade", "evaluate", TARGET}
    answered = {f"runs/arithmetic/evaluation/r0/auto/{shard}.pkl" for shard in SHARDS}
    assert set(outputs(output, "generate_eval")) == answered

    # What only says how a set is answered freezes no prompts again.
    fork.configure(config_of(None))
    assert jobs(fork.snakemake("-n", TARGET)) == {"generate_eval", "grade", "evaluate", TARGET}


def faults(**of_set):
    config = tiny_config()
    config["prompts"]["eval"] = {"a": {"count": {"one_digit": 4}}, "b": {"count": {"one_digit": 4}} | of_set}
    with pytest.raises(ConfigError) as caught:
        load(config)
    return str(caught.value)


def test_faults_name_the_set():
    assert "prompts.eval.b.sampling.samples 4: with temperature 0" in faults(sampling={"samples": 4})
    assert "prompts.eval.b.sampling.top_p: Input should be" in faults(sampling={"top_p": 2})
    assert "prompts.eval.b.sampling.repetition_penalty: the engine transformers cannot" in faults(
        sampling={"repetition_penalty": 1.1}
    )
    assert "prompts.eval.b.settings.switches.0: Input should be" in faults(settings={"switches": ["no"]})
    assert "did you mean 'samples'" in faults(sampling={"sample": 4})

    config = tiny_config()
    config["prompts"]["eval"]["sampling"] = {"samples": 4}
    with pytest.raises(ConfigError, match=r"eval\.sampling: it is for one of several sets by name; .* generate\.eval"):
        load(config)


def test_settings_without_effect_are_refused(fork):
    config = config_of({"samples": 2, "temperature": 1.0})
    config["prompts"]["eval"]["facts"]["settings"] = {"switches": ["all"]}
    fork.configure(config)
    output = fork.snakemake("-n", TARGET, fails=True)
    assert "prompts.eval.facts.settings: no answer and no grade depends on switches" in output
