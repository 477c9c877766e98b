"""Curves of training in TensorBoard and MLflow. `make test-tracking` has both; elsewhere these tests are skipped."""

from importlib.util import find_spec

import pytest

from tests.harness import Copy, tiny_config
from tests.workshop import Workshop
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.config.sections import TRACKERS, Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training.tracking import tracked


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def own_variables(monkeypatch):
    """Forget after each test what `tracked` tells the trackers."""
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.skipif(not any(map(find_spec, TRACKERS["tensorboard"])), reason="TensorBoard is not installed")
def test_curves_are_kept_for_tensorboard(workshop, monkeypatch):
    monkeypatch.setenv("TRACKING", "tensorboard")
    folder = workshop.folder / "tensorboard"

    workshop.train("in_tensorboard", "--curves", folder, objective="sft")

    [events] = folder.rglob("events.*")
    assert b"train/grad_norm" in events.read_bytes()


@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed")
def test_curves_are_kept_in_mlflow(workshop, monkeypatch):
    import mlflow

    monkeypatch.setenv("TRACKING", "mlflow")
    folder = workshop.folder / "mlflow"

    workshop.train("in_mlflow", "--curves", folder, objective="sft")

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [experiment] = [item for item in client.search_experiments() if item.name == workshop.folder.name]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"{workshop.folder.name}.r0"
    assert len(client.get_metric_history(run.info.run_id, "grad_norm")) == 2


def test_a_tracker_that_is_not_installed_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKING", "mlflow")
    monkeypatch.setattr("workflow_scripts.training.tracking.find_spec", lambda name: None)

    with pytest.raises(BadInput, match="tracking: mlflow is not installed"), tracked(tmp_path, 1, 0, Train(), "x"):
        pass


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_a_dry_run_tells_it_too(tmp_path):
    copy = Copy(tmp_path / "copy", tiny_config(tracking="mlflow"))
    assert "tracking: mlflow is not installed in" in copy.snakemake("-n", "round1_checkpoint")


def test_trackers_are_those_of_the_config():
    for tracker in TRACKERS:
        assert load(tiny_config(tracking=tracker)).tracking == tracker
    with pytest.raises(ConfigError, match=r"tracking: Input should be 'wandb', 'tensorboard' or 'mlflow'"):
        load(tiny_config(tracking="aim"))
