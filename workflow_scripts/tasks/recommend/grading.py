"""The reward of a dialogue."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from workflow_scripts.core.records import Answer
from workflow_scripts.core.running.cli import merged
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import EnvironmentOptions, mean
from workflow_scripts.tasks.recommend.items import Catalogue, open_catalogue
from workflow_scripts.tasks.recommend.outcomes import better_hit, outcome_of, utterances
from workflow_scripts.tasks.recommend.settings import Settings


class Grading(defaults.Grading):
    """Adds `reward`, `success`, `interactions`, `ranks` and `reranked`.

    The reward is 1 and a bonus for a hit, else minus `recommend.reward`. A dialogue whose form is wrong to the end
    failed. `reranked` is a right last list as rewritten, where the rounds train on it too (`recommend.rerank`).
    """

    depends_on = ("uid", "turns", "fault", "reference")

    running: EnvironmentOptions = EnvironmentOptions()

    @cached_property
    def options(self) -> Settings:
        return Settings.model_validate(merged(dict(self.settings), self.running.endpoints))

    @cached_property
    def catalogue(self) -> Catalogue:
        return open_catalogue(self.files["catalogue"], self.options.grounding, self.running, "grade")

    def grade_batch(self, answers: Sequence[Answer], run: defaults.RunProgram) -> list[dict[str, Any]]:
        texts = [text for answer in answers for text in utterances(answer["turns"])]  # type: ignore[typeddict-item]
        self.catalogue.prepare(texts)
        return [self.grade(answer, run) for answer in answers]

    def close(self) -> None:
        if "catalogue" in self.__dict__:
            self.catalogue.close()

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        turns = answer["turns"]  # type: ignore[typeddict-item]  (every dialogue has them)
        targets = answer["reference"]
        outcome = outcome_of(self.catalogue, turns, targets)

        is_right = outcome.success and not answer.get("fault")
        reward = 1.0 + self.options.bonus / max(1, outcome.interactions) if is_right else -self.options.reward

        reranked = None
        is_last = outcome.interactions == (len(turns) + 1) // 2
        if is_right and is_last and self.options.rerank:
            reranked = better_hit(self.catalogue, turns, targets, outcome, self.options.list_length)

        return {
            "reward": reward,
            "success": outcome.success,
            "interactions": outcome.interactions,
            "ranks": outcome.ranks,
            "reranked": reranked,
        }

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        return {
            "reward": mean(answer["reward"] for answer in graded),
            "success": mean(answer["success"] for answer in graded),
            "interactions": mean(answer["interactions"] for answer in graded),
            "n": len(graded),
        }
