"""Curves of training in Weights & Biases, TensorBoard or MLflow, one run of theirs per round.

The workflow sets the variables of these programs from the config. TRACKING names one of them, and WANDB_MODE and
WANDB_PROJECT are those of wandb. Keys come from the environment only (WANDB_API_KEY, MLflow's credentials). The curves
are written by the callbacks of transformers. Everything works without wandb installed.
"""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow_scripts.config.sections import TRACKERS, Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.deadline import OutOfTime

NONE = "none"


@contextlib.contextmanager
def tracked(folder: Path | None, round: int, seed: int, settings: Train, work: str) -> Iterator[str]:
    """Yield where the training within reports its curves: wandb, tensorboard, mlflow or none.

    Args:
        folder: where the curves are kept; None: nowhere.
        round, seed, settings: of the training, as they are shown with its curves.
        work: the digest of the training. It is the id of the wandb run, so a resumed training goes on in it.
    """
    tracker = os.environ.get("TRACKING", "wandb")
    if folder is None or int(os.environ.get("RANK", 0)):
        yield NONE
    elif tracker == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / f"r{round}")
        yield _installed(tracker)
    elif tracker == "mlflow":
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", folder.parent.name)
        os.environ["MLFLOW_TAGS"] = f'{{"mlflow.runName": "{folder.parent.name}.r{round}", "work": "{work}"}}'
        yield _installed(tracker)
    else:
        with _in_wandb(folder, round, seed, settings, work) as name:
            yield name


def _installed(tracker: str) -> str:
    """Return the tracker's name. Raise BadInput if none of the packages that can write its curves is installed."""
    if not any(map(find_spec, TRACKERS[tracker])):
        raise BadInput(f"tracking: {tracker} is not installed (pip install {tracker}, or set tracking: wandb)")
    return tracker


@contextlib.contextmanager
def _in_wandb(folder: Path, round: int, seed: int, settings: Train, work: str) -> Iterator[str]:
    mode: Any = os.environ.get("WANDB_MODE", "disabled")
    if mode == "disabled":
        yield NONE
        return
    if find_spec("wandb") is None:
        say("wandb is not installed: no curves are kept (pip install wandb, or set wandb.mode: disabled)")
        yield NONE
        return
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise BadInput("wandb.mode online needs a key in the environment variable WANDB_API_KEY; offline needs none")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        name=f"{folder.parent.name}.r{round}", id=work, resume="allow", mode=mode, dir=folder,
        config=settings.model_dump(mode="json") | {"round": round, "seed": seed},
        settings=wandb.Settings(console="off", silent=True),
    ):  # fmt: skip
        ended = None
        try:
            yield "wandb"
        except OutOfTime as error:  # no failure; wandb would print a traceback
            ended = error
    if ended:
        raise ended
