"""What is kept of earlier rounds."""

from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveInt

from workflow_scripts.config.sections.base import Section


class Every(Section):
    """Every so many rounds."""

    every: PositiveInt  # a round is kept if its number is a multiple of this


def _check_last(kept: list[Literal["last", "best"] | Every]) -> list[Literal["last", "best"] | Every]:
    if "last" not in kept:
        raise ValueError("must name `last`, from which the next round starts")
    return kept


Checkpoints = Annotated[list[Literal["last", "best"] | Every], AfterValidator(_check_last)]


class Keep(Section):
    """What is kept of earlier rounds. The rest is deleted once no pending job needs it.

    Round 0's weights always stay.
    """

    checkpoints: Checkpoints | None = None  # rounds whose weights stay: [last, best, {every: 5}]; null: all
    ledgers: PositiveInt | None = None  # the last rounds whose finished records are kept; null: those of all rounds

    @property
    def everything(self) -> bool:
        """True if nothing is ever deleted."""
        return self.checkpoints is None and self.ledgers is None
