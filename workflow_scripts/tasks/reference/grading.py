"""The reward of the task `reference`: how much an answer resembles the references."""

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from workflow_scripts import rewards
from workflow_scripts.core.records import Answer
from workflow_scripts.rewards.bleu import sentence_bleu
from workflow_scripts.rewards.rouge import rouge
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
DEFAULT_REWARD = "bleu"  # the reward if the config names none


class Grading(defaults.RewardedGrading):
    """Adds `reward`, `parts` (the rewards that the chosen one combines, by name), `bleu` and `rouge_l`.

    If the chosen reward combines several, `reward` is the plain mean of its parts: their scales are known only among
    all answers to a prompt, so Selection combines them.
    """

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        text = answer_of(answer["answer"])
        references = answer["reference"]
        record: dict[str, Any] = {**answer}
        reward = self.reward or DEFAULT_REWARD
        parts = rewards.compute_parts(reward, self.reward_model, text, references, record)

        return {
            "reward": fmean(parts.values()),
            "parts": parts,
            "bleu": sentence_bleu(text, references),
            "rouge_l": rouge(text, references, record),
        }

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the means of BLEU, ROUGE-L, and each part of the reward."""
        means = {
            "bleu": mean(answer["bleu"] for answer in graded),
            "rouge_l": mean(answer["rouge_l"] for answer in graded),
        }
        for name in graded[0]["parts"]:
            means[f"reward {name}"] = mean(answer["parts"][name] for answer in graded)

        return means | {"n": len(graded)}


def answer_of(text: str) -> str:
    """Return the part of a text that is graded: what stands between <answer> tags, or all of it if there are none."""
    match = ANSWER.search(text)
    return (match[1] if match else text).strip()
