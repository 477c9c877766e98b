"""What a rule passes on is what its results depend on."""

from pathlib import Path
from types import SimpleNamespace

import yaml

from tests.harness import tiny_config
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.workflow.params import ParamsOfRules


def test_only_settings_that_answers_depend_on_are_parameters_of_generation():
    limits = {"max_num_seqs": 64, "gpu_memory_utilization": 0.8, "enable_prefix_caching": False}
    config = tiny_config()
    config["generate"] |= {"engine": "vllm", "programs": 4, "save_seconds": 5.0}
    before = parameters(config)

    config["generate"]["vllm"] = limits
    assert parameters(config) == before

    config["generate"]["vllm"] = limits | {"max_model_len": 1024}
    assert parameters(config) == before | {"vllm": {"max_model_len": 1024}}

    config["generate"]["auto"] |= {"stop": ["\n\n"]}
    assert parameters(config)["auto"] == before["auto"] | {"stop": ["\n\n"]}


def parameters(config) -> dict:
    """Return what the rule `generate` passes on of its settings in the version auto."""
    cfg = load(config)
    run = Run(cfg)
    return ParamsOfRules(cfg, run, Wing(cfg, run)).generation("auto")


def test_training_gets_the_answers_only_if_it_compares_their_engine():
    config = tiny_config()
    assert "--answers" not in stored(config)

    config["train"] |= {"max_mismatch": 0.1}
    assert "--answers runs/arithmetic/results/r1/auto/2_0.pkl" in stored(config)

    config["results"] = {1: {"auto": ["earlier.pkl"]}}  # nobody knows their engine
    assert "--answers" not in stored(config)


def test_weights_for_engines_are_no_parameter_of_training():
    config = tiny_config()
    before = trained(config)
    config["train"] |= {"engine_weights": "bfloat16"}
    assert trained(config) == before
    assert "engine_weights" not in str(before)


def trained(config) -> dict:
    """Return what the rule `train` passes on of its settings."""
    cfg = load(config)
    run = Run(cfg)
    params = ParamsOfRules(cfg, run, Wing(cfg, run)).train("train", cfg.train)
    return {name: value for name, value in params.items() if not callable(value)}


def test_only_rounds_that_replay_rows_depend_on_replay():
    config = tiny_config(rounds=3)
    plain = data_of_round(config, 1)
    config["data"] |= {"replay": {"rounds": 2}}

    assert data_of_round(config, 1) == plain
    third = data_of_round(config, 3)
    assert "--replay 2=runs/arithmetic/data/offline_small_r2_arithmetic.pkl 1=" in third
    assert "--replay-logp 2=runs/arithmetic/data/offline_small_r2_arithmetic_logp/2_0.pkl" in third
    assert '"replay": {"rounds": 2}' in third


def data_of_round(config, n: int) -> str:
    """Return what the rule `construct_data` passes on in a round, without its code."""
    cfg = load(config)
    run = Run(cfg)
    params = ParamsOfRules(cfg, run, Wing(cfg, run)).construct_data()
    wildcards = SimpleNamespace(n=n, items=lambda: {"n": n}.items())
    pieces = [value(wildcards) if callable(value) else value for name, value in params.items() if name != "code"]
    return " ".join(filter(None, pieces))


def test_objectives_without_ratios_compare_distributions_at_temperature_1():
    with_ratios = tiny_config()
    with_ratios["generate"] |= {"auto": with_ratios["generate"]["auto"] | {"temperature": 0.8}, "trigger": None}
    assert "--temperature 0.8" in scored(with_ratios)

    on_pairs = yaml.safe_load(Path("recipes/tabular-tiny.yaml").read_text())
    assert on_pairs["generate"]["auto"]["temperature"] == 0.8
    assert "--temperature" not in scored(on_pairs)


def scored(config) -> str:
    """Return what the rule `logp` passes on."""
    cfg = load(config)
    run = Run(cfg)
    return str(ParamsOfRules(cfg, run, Wing(cfg, run)).logp("logp"))


def stored(config) -> str:
    """Return what the rule `train` of round 1 passes on of stored log-probs and answers."""
    cfg = load(config)
    run = Run(cfg)
    return ParamsOfRules(cfg, run, Wing(cfg, run)).stored_logps(SimpleNamespace(n="1"))
