"""Test what jobs ask of a cluster, as a dry run with the profile `slurm` shows it."""

import re
from typing import Any

import pytest
from snakemake.exceptions import WorkflowError

from tests.harness import Copy, tiny_config
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.workflow import resources

TARGET = "round1_checkpoint"


def large_config(**train: Any) -> dict[str, Any]:
    """Return a config with a 7B model of the hub, on vLLM and DeepSpeed."""
    config = tiny_config(model={"path": "some-lab/some-model-7b", "parameters": 7e9}, cold_start=None)
    config["generate"] |= {"engine": "vllm", "gpus": 4, "tensor_parallel": 2, "dtype": "bfloat16"}
    config["train"] |= {"processes": 8, "deepspeed": {"stage": 3}, **train}
    return config


def with_teacher(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with a teacher in the policy's place."""
    config["generate"]["openai"] = {"base_url": "http://none", "model": "m"}
    config["generate"]["auto"] |= {"engine": "openai"}
    config["generate"]["trigger"] = None
    config["train"] |= {"objective": "sft"}
    return config


def requested(copy: Copy, *options: str) -> dict[str, dict[str, str]]:
    """Return the resources of one job of each rule."""
    output = copy.snakemake("-n", "--profile", "slurm", *options, "--", TARGET)
    listed = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)", output, re.M)
    return {rule: dict(item.split("=", 1) for item in line.split(", ")) for rule, line in listed}


# ---------------------------------------------------------------- a dry run's last words


def test_a_dry_run_sums_up_what_is_asked_for_and_cuts_long_lists(tmp_path):
    config = large_config()
    config["shards"] = 16
    output = Copy(tmp_path, config).snakemake("-n", "--profile", "slurm", "--", TARGET)

    [train] = re.findall(r"^train +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", output, re.M)
    count, gpus, memory, hours, gpu_hours = map(float, train)
    assert (count, gpus) == (1, 8)
    assert memory > 56
    assert gpu_hours == pytest.approx(8 * hours, abs=0.5)
    assert re.search(r"^together +\d+ +[\d.]+$", output, re.M)
    assert "more files" in output
    assert max(map(len, output.splitlines())) < 2000


# ---------------------------------------------------------------- GPUs and nodes


def test_gpus_and_nodes_follow_from_the_config(tmp_path):
    rules = requested(Copy(tmp_path, large_config()))

    assert rules["generate"]["nodes"] == rules["logp"]["nodes"] == rules["train"]["nodes"] == "1"
    assert rules["generate"]["gpu"] == rules["generate_eval"]["gpu"] == "4"
    assert rules["logp"]["gpu"] == "1"
    assert rules["train"]["gpu"] == "8"
    assert "mpi" not in rules["train"]
    for rule in ("grade", "construct_meta", "construct_data", "evaluate", "init_model", "freeze_prompts"):
        assert "gpu" not in rules[rule], rule

    assert int(rules["train"]["mem_mb"]) > 2 * 28_000
    assert int(rules["train"]["runtime"]) >= 480
    assert int(rules["generate"]["mem_mb"]) > 14_000


def test_a_teacher_takes_no_gpu_and_one_endpoint(tmp_path):
    rules = requested(Copy(tmp_path, with_teacher(large_config())))

    assert (rules["generate"]["gpu"], rules["generate"]["api"]) == ("0", "1")
    assert (rules["generate_eval"]["gpu"], rules["generate_eval"]["api"]) == ("4", "0")


def test_several_nodes_are_one_srun(tmp_path):
    train = requested(Copy(tmp_path, large_config(nodes=2)))["train"]

    assert (train["nodes"], train["tasks"], train["mpi"], train["gpu"]) == ("2", "2", "srun", "0")
    assert train["slurm_extra"] == "--gpus-per-node=8"


def test_snakemakes_own_option_overrides(tmp_path):
    rules = requested(Copy(tmp_path, large_config()), "--set-resources", "train:runtime=77", "generate:gpu=0")

    assert rules["train"]["runtime"] == "77"
    assert rules["generate"]["gpu"] == "0"


# ---------------------------------------------------------------- memory and time


def test_memory_is_for_the_engine_that_answers():
    teacher = load(with_teacher(large_config()))
    policy = load(large_config())

    assert resources.size_of_generation(teacher) == resources.size_of_generation(policy)


def test_a_model_of_unknown_size_must_be_described_for_a_cluster(tmp_path):
    config = large_config()
    del config["model"]["parameters"]
    cfg = load(config)
    wing = Wing(cfg, Run(cfg))
    message = r"model\.parameters: some-lab/some-model-7b is not a folder with weights"

    assert "train" in Copy(tmp_path, config).snakemake("-n", TARGET)  # on this machine no scheduler is asked
    assert resources.ResourcesOfRules(cfg, wing, is_local=True).model()["mem_mb"](None, 1) == 0
    with pytest.raises(WorkflowError, match=f"config: {message}"):
        resources.ResourcesOfRules(cfg, wing, is_local=False).model()["mem_mb"](None, 1)
    with pytest.raises(ValueError, match=message):
        resources.parameters(cfg.model)


def test_each_further_attempt_asks_for_half_as_much_again():
    cfg = load(large_config())
    training = resources.ResourcesOfRules(cfg, Wing(cfg, Run(cfg)), is_local=False).training(cfg.train)
    first, second, third = (training["mem_mb"](None, attempt) for attempt in (1, 2, 3))

    assert second == pytest.approx(1.5 * first, abs=1)
    assert third == pytest.approx(2 * first, abs=1)


def test_time_is_capped_at_a_day(tmp_path):
    config = large_config()
    config["model"]["parameters"] = 70e9

    assert requested(Copy(tmp_path, config))["train"]["runtime"] == "1440"


def test_a_model_has_the_same_size_whether_it_is_made_or_here_already(finished):
    scratch = load(tiny_config()).model
    local = scratch.model_copy(update={"scratch": None, "path": str(finished.path("checkpoints/r0/model"))})

    assert resources.parameters(local) == pytest.approx(resources.parameters(scratch), rel=0.02)


def test_memory_grows_with_what_a_node_holds():
    def memory(**train: Any) -> float:
        cfg = load(large_config(**train))
        return resources.size_of_training(cfg, cfg.train)[0]

    sharded = memory()
    whole = memory(deepspeed={"stage": 2})
    offloaded = memory(deepspeed={"stage": 3, "offload": True})

    assert sharded < offloaded
    assert sharded < whole
    assert memory(deepspeed={"stage": 3, "offload": True}, nodes=2) < offloaded


# ---------------------------------------------------------------- login nodes


def test_a_login_node_needs_no_torch(tmp_path, monkeypatch):
    """Nor the other large packages: the jobs' own environments have them (--sdm conda)."""
    copy = Copy(tmp_path, large_config())
    heavy = ("torch", "transformers", "datasets", "sklearn", "openai", "matplotlib")
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in heavy)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{hidden}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert "train" in requested(copy)
