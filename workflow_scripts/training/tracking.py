"""Curves in Weights & Biases, one wandb run per round.

The workflow sets wandb's own variables from the config: WANDB_MODE (without it nothing is kept) and WANDB_PROJECT. The
key comes from the environment only (WANDB_API_KEY). Everything works without wandb installed.
"""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.deadline import OutOfTime


@contextlib.contextmanager
def tracked(folder: Path | None, round: int, seed: int, settings: Train, work: str) -> Iterator[bool]:
    """Yield whether the training within reports to wandb, into `folder` (None: it does not).

    `work`, the digest of the training, is the id of the wandb run, so a resumed training goes on in it.
    """
    mode: Any = os.environ.get("WANDB_MODE", "disabled")
    if folder is None or mode == "disabled" or int(os.environ.get("RANK", 0)):
        yield False
        return
    if find_spec("wandb") is None:
        say("wandb is not installed: no curves are kept (pip install wandb, or set wandb.mode: disabled)")
        yield False
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
            yield True
        except OutOfTime as error:  # no failure; wandb would print a traceback
            ended = error
    if ended:
        raise ended
