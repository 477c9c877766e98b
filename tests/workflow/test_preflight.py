"""Before the first job, one list of everything that the pending jobs need and that is missing."""

import os
import sys

import pytest

from tests.harness import REPOSITORY, Copy, tiny_config
from workflow_scripts.config.load import load
from workflow_scripts.core.running import cli, hub
from workflow_scripts.workflow.environments import Environments
from workflow_scripts.workflow.freezing import is_model_on_hub
from workflow_scripts.workflow.preflight import has_distribution, lacking

CHECKPOINT = "runs/arithmetic/checkpoints/r1/checkpoint.json"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


def demanding_config() -> dict:
    """Return an experiment that needs what this machine lacks."""
    config = tiny_config(model={"path": "some-lab/some-model", "parameters": 7e9}, cold_start=None)
    config["generate"] |= {"engine": "vllm", "trigger": None, "gpus": 2}
    config["generate"]["openai"] = {"base_url": NOWHERE, "model": "teacher", "key_env": "TEACHER_KEY"}
    config["generate"]["auto"] |= {"engine": "openai"}
    config["python"] = {"vllm": "/nowhere/python"}
    config["train"] |= {"objective": "sft", "deepspeed": {"stage": 2}}
    config["wandb"] = {"mode": "online"}
    return config


def test_everything_that_is_missing_is_told_at_once_and_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("LOCAL_GPUS", "0")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    copy = Copy(tmp_path / "copy", demanding_config())
    expected = [
        "python.vllm: /nowhere/python does not run (generate, generate_eval)",
        f"train: {sys.executable} lacks deepspeed; run `make setup-gpu`",
        "generate_eval asks for 2 GPUs, but there are 1 here",
        "the environment variable TEACHER_KEY is not set",
        "the environment variable WANDB_API_KEY is not set",
        f"model.path: some-lab/some-model is not in the hub's cache ({tmp_path}/hf/hub)",
        f"{NOWHERE} cannot be reached from here",
        "hf download some-lab/some-model",
    ]

    dry_run = copy.snakemake("-n", "round1_checkpoint")
    started = copy.snakemake("round1_checkpoint", fails=True)

    for sentence in expected:
        assert sentence in dry_run
        assert sentence in started
    assert not copy.path("logs").exists()


def test_only_pending_jobs_count(fork):
    config = tiny_config()
    config["wandb"] = {"mode": "online"}  # reruns nothing, and only training needs the key
    fork.configure(config)
    assert "What the pending jobs need" not in fork.snakemake("-n", CHECKPOINT)


def test_an_embedder_that_cannot_be_fetched_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = Copy(tmp_path / "copy")
    recipe = ["--configfile", "recipes/recommend-tiny.yaml", "--config"]

    output = copy.snakemake("-n", "round0_data", *recipe, "recommend={grounding: {embedder: lab/encoder}}")
    assert "recommend.grounding.embedder: lab/encoder is not in the hub's cache" in output
    output = copy.snakemake("-n", "round0_data", *recipe, "recommend={grounding: {embedder: ./encoder}}")
    assert "recommend.grounding.embedder: there is no folder ./encoder" in output


def test_a_cluster_whose_programs_are_missing_is_told(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in os.scandir("/usr/bin"):
        if program.name not in ("sbatch", "squeue"):
            (programs / program.name).symlink_to(program.path)
    monkeypatch.setenv("PATH", str(programs))

    output = Copy(tmp_path / "copy", tiny_config()).snakemake("-n", "--profile", "slurm", "--", CHECKPOINT)
    assert "sbatch and squeue of Slurm are not on the path: run on a login node" in output


# ---------------------------------------------------------------- the parts


def test_packages_are_looked_for_in_another_python():
    assert lacking(sys.executable, ("torch", "no_such_package")) == ["no_such_package"]
    assert lacking("/usr/bin/python3", ("json", "no_such_package")) == ["no_such_package"]
    assert lacking("/nowhere/python", ("json",)) is None
    assert has_distribution(sys.executable, "torch")
    assert not has_distribution(sys.executable, "no-such-distribution")


def test_an_environment_is_the_configs_or_one_that_was_built_beside_the_workflow(tmp_path):
    config = tiny_config()
    config["generate"]["engine"] = "vllm"
    config["train"]["deepspeed"] = {"stage": 2}
    built = tmp_path / ".venv-vllm/bin/python"
    built.parent.mkdir(parents=True)
    built.touch()

    environments = Environments(load(config), str(tmp_path), uses_conda=False)
    assert environments.of_generation == "vllm"
    assert environments.own_python("vllm") == str(built)
    assert environments.command("vllm") == f'env PATH={built.parent}:"$PATH" {built}'
    assert environments.command("deepspeed") == "python"  # there is none, so the Python that runs Snakemake must do
    assert environments.python("deepspeed") == sys.executable

    named = Environments(load(config | {"python": {"vllm": "/x/bin/python"}}), str(tmp_path), uses_conda=False)
    assert named.own_python("vllm") == "/x/bin/python"

    conda = Environments(load(config), str(tmp_path), uses_conda=True)
    assert conda.command("vllm") == "python"
    assert conda.conda_file("vllm") == f"{tmp_path}/envs/vllm.yaml"
    assert (REPOSITORY / f"envs/{load(config).train.environment}.yaml").is_file()


def test_a_model_of_the_hub_is_fetched_on_the_login_node(tmp_path):
    assert is_model_on_hub(load(demanding_config()))
    assert not is_model_on_hub(load(tiny_config()))
    assert not is_model_on_hub(load(tiny_config(model={"path": str(tmp_path)}, cold_start=None)))


def test_what_is_in_the_hubs_cache_need_not_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_unreachable_endpoint", lambda: NOWHERE)
    assert "is not in the hub's cache" in (hub.fault("model.path", "lab/model") or "")

    snapshot = tmp_path / "models--lab--model/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert hub.fault("model.path", "lab/model") is None
    assert "--repo-type dataset lab/model" in (hub.fault("prompts", "lab/model", "dataset") or "")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE forbids" in (hub.fault("prompts", "lab/data", "dataset") or "")


@pytest.mark.parametrize("offline", [True, False])
def test_the_hubs_errors_are_sentences(tmp_path, monkeypatch, capsys, offline):
    """The error is huggingface_hub's own, with an empty cache."""
    from huggingface_hub import snapshot_download

    with pytest.raises(SystemExit) as end:
        cli.run(lambda: snapshot_download("lab/model", cache_dir=tmp_path, local_files_only=offline, endpoint=NOWHERE))

    message = capsys.readouterr().err
    assert end.value.code == 65
    assert "the Hugging Face hub cannot be reached from here" in message
    assert "hf download" in message
    assert "None" not in message
