"""Select what a round of the task `reference` trains on: all answers, rewarded relative to their prompt's."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts import rewards
from workflow_scripts.core.records import GradedAnswer, MetaEntry
from workflow_scripts.tasks import defaults


class Selection(defaults.Selection):
    """All answers; a reward of several parts is in units of their spread among the answers to one prompt."""

    def construct_meta(self, answers: Sequence[GradedAnswer], dedup: bool) -> dict[str, MetaEntry]:
        return super().construct_meta(with_combined_rewards(answers), dedup)


def with_combined_rewards(answers: Sequence[Any]) -> list[Any]:
    """Return graded answers with the reward that their `parts` give among the answers to the same prompt."""
    groups: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        groups.setdefault(answer["id"], []).append(position)

    rewarded = list(answers)
    for positions in groups.values():
        values = rewards.combine([answers[position]["parts"] for position in positions])
        for position, value in zip(positions, values):
            rewarded[position] = answers[position] | {"reward": value}

    return rewarded
