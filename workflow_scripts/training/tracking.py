"""Curves in Weights & Biases, one run per round.

Told by wandb's own variables, which the workflow sets from the config: WANDB_MODE (without it nothing is kept) and
WANDB_PROJECT. The key comes from the environment only (WANDB_API_KEY). Without wandb installed everything works.
"""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from workflow_scripts.core.cli import say
from workflow_scripts.core.deadline import OutOfTime
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import Train


@contextlib.contextmanager
def tracked(args, settings: Train, work: str) -> Iterator[bool]:
    """Whether the training within reports to wandb. `work`, its digest, is the run's id: resuming goes on in it."""
    mode = os.environ.get("WANDB_MODE", "disabled")
    if mode == "disabled" or int(os.environ.get("RANK", 0)):
        yield False
        return
    if find_spec("wandb") is None:
        say("wandb is not installed: no curves are kept (pip install wandb, or set wandb.mode: disabled)")
        yield False
        return
    if mode == "online" and not os.environ.get("WANDB_API_KEY"):
        raise BadInput("wandb.mode online needs a key in the environment variable WANDB_API_KEY; offline needs none")
    import wandb

    folder = Path(args.state).parents[1] / "wandb"  # runs/<name>/wandb
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        name=f"{folder.parent.name}.r{args.round}", id=work, resume="allow", mode=mode, dir=folder,
        config=settings.model_dump(mode="json") | {"round": args.round, "seed": args.seed},
        settings=wandb.Settings(console="off", silent=True),
    ):  # fmt: skip
        ended = None
        try:
            yield True
        except OutOfTime as error:  # no failure, of which wandb would print a traceback
            ended = error
    if ended:
        raise ended
