"""What jobs ask of a cluster, as a dry run with the profile `slurm` shows it."""

import re

import pytest
from conftest import Copy, tiny_config

from workflow_scripts.core import resources
from workflow_scripts.core.config import load

LARGE = {"path": "some-lab/some-model-7b", "parameters": 7e9}


def large_config(**train) -> dict:
    """A 7B model of the hub, on vLLM and DeepSpeed."""
    config = tiny_config(model=dict(LARGE), cold_start=None)
    config["generate"] |= {"engine": "vllm", "gpus": 4, "tensor_parallel": 2, "dtype": "bfloat16"}
    config["train"] |= {"processes": 8, "deepspeed": {"stage": 3}, **train}
    return config


def asked(copy: Copy, *options: str) -> dict[str, dict[str, str]]:
    """The resources of one job of each rule."""
    output = copy.snakemake("-n", "--profile", "slurm", *options, "--", "round1_checkpoint")
    found = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)", output, re.M)
    return {rule: dict(item.split("=", 1) for item in line.split(", ")) for rule, line in found}


def test_gpus_and_nodes_follow_from_the_config(tmp_path):
    rules = asked(Copy(tmp_path, large_config()))
    assert rules["generate"]["nodes"] == rules["logp"]["nodes"] == "1"
    assert rules["generate"]["gpu"] == "4" and rules["generate_eval"]["gpu"] == "4" and rules["logp"]["gpu"] == "1"
    assert rules["train"]["gpu"] == "8" and rules["train"]["nodes"] == "1" and "mpi" not in rules["train"]
    for rule in ("grade", "construct_meta", "construct_data", "evaluate", "init_model", "freeze_prompts"):
        assert "gpu" not in rules[rule], rule
    assert int(rules["train"]["mem_mb"]) > 2 * 28_000 and int(rules["train"]["runtime"]) >= 480
    assert int(rules["generate"]["mem_mb"]) > 14_000


def test_memory_is_for_the_engine_that_answers(tmp_path):
    config = large_config()
    config["generate"]["openai"] = {"base_url": "http://none", "model": "m"}
    config["generate"]["auto"] |= {"engine": "openai"}
    config["generate"]["trigger"] = None
    config["train"] |= {"objective": "sft"}
    teacher, policy = (resources.of_generation(load(one)) for one in (config, large_config()))
    assert teacher["mem_mb"] == policy["mem_mb"]


def test_several_nodes_are_one_srun(tmp_path):
    train = asked(Copy(tmp_path, large_config(nodes=2)))["train"]
    assert (train["nodes"], train["tasks"], train["mpi"], train["gpu"]) == ("2", "2", "srun", "0")
    assert train["slurm_extra"] == "--gpus-per-node=8"


def test_snakemakes_own_option_overrides(tmp_path):
    rules = asked(Copy(tmp_path, large_config()), "--set-resources", "train:runtime=77", "generate:gpu=0")
    assert rules["train"]["runtime"] == "77" and rules["generate"]["gpu"] == "0"


def test_a_model_of_unknown_size_is_asked_for(tmp_path):
    config = large_config()
    del config["model"]["parameters"]
    assert "train" in Copy(tmp_path, config).snakemake("-n", "round1_checkpoint")  # a local job asks nobody
    with pytest.raises(ValueError, match="some-lab/some-model-7b is no folder here with weights"):
        resources.parameters(load(config).model)


def test_time_is_capped_at_a_day(tmp_path):
    config = large_config()
    config["model"]["parameters"] = 70e9
    assert asked(Copy(tmp_path, config))["train"]["runtime"] == "1440"


def test_a_login_node_needs_no_torch(tmp_path):
    """Nor any of its kin: the jobs bring them, by --sdm conda."""
    copy = Copy(tmp_path, large_config())
    heavy = ("torch", "transformers", "datasets", "sklearn", "openai", "matplotlib")
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in heavy)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert "train" in asked(copy)


def test_sizes_of_models_made_or_at_hand(finished):
    scratch = load(tiny_config()).model
    made = resources.parameters(scratch)
    local = scratch.model_copy(update={"scratch": None, "path": str(finished.path("checkpoints/r0/model"))})
    assert resources.parameters(local) == pytest.approx(made, rel=0.02)


def test_memory_grows_with_what_is_held_there():
    def memory(**train):
        cfg = load(large_config(**train))
        return resources.of_training(cfg, cfg.train)["mem_mb"]

    sharded, whole = memory(), memory(deepspeed={"stage": 2})
    offloaded = memory(deepspeed={"stage": 3, "offload": True})
    assert sharded < offloaded and sharded < whole
    assert memory(deepspeed={"stage": 3, "offload": True}, nodes=2) < offloaded
