"""The metrics of the task `reference`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from workflow_scripts.rewards.bleu import tokens_of
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean

Record = dict[str, Any]


class Evaluation(defaults.Evaluation):
    """Means over greedy answers, and how often an answer beats the round before's answer to the same prompt.

    `distinct_2` is the number of different pairs of neighbouring tokens over the number of all pairs. `length` counts
    tokens. For the win rates see `win_rates`.
    """

    metrics: ClassVar[dict[str, tuple[str, str]]] = {
        "bleu": ("BLEU", ".1%"),
        "rouge_l": ("ROUGE-L", ".1%"),
        "distinct_2": ("distinct 2-grams", ".1%"),
        "length": ("tokens per answer", ".0f"),
        "win_rate": ("BLEU against the round before: wins", ".0%"),
    }
    right: ClassVar[str | None] = None

    def values(self, answer: Record) -> dict[str, float]:
        return {"bleu": answer["bleu"], "rouge_l": answer["rouge_l"], "length": len(tokens_of(answer["answer"]))}

    def measure(self, answers: Sequence[Record]) -> dict[str, Any]:
        texts = [tokens_of(answer["answer"]) for answer in answers]
        pairs = [pair for tokens in texts for pair in itertools.pairwise(tokens)]
        metrics = {
            "bleu": mean(answer["bleu"] for answer in answers),
            "rouge_l": mean(answer["rouge_l"] for answer in answers),
            "distinct_2": len(set(pairs)) / max(1, len(pairs)),
            "length": mean(map(len, texts)),
            "n": len(answers),
        }
        return metrics | win_rates(answers)


def win_rates(answers: Sequence[Record]) -> dict[str, float]:
    """Return the share of answers that beat the round before's, where a tie counts as half; nothing for round 0.

    `win_rate` compares BLEU. The others have the name of what they compare: ROUGE-L, each part of the reward, and the
    judge's verdicts, if there are any.
    """
    compared = [answer for answer in answers if answer.get("before")]
    if not compared:
        return {}

    rates = {
        "win_rate": share_of_wins(compared, lambda answer: answer["bleu"]),
        "win_rate rouge_l": share_of_wins(compared, lambda answer: answer["rouge_l"]),
    }
    for name in compared[0]["parts"]:
        rates[f"win_rate {name}"] = share_of_wins(compared, lambda answer, name=name: answer["parts"][name])

    verdicts = [answer["judged"] for answer in compared if answer.get("judged") is not None]
    if verdicts:
        rates["win_rate judge"] = mean(verdicts)

    return rates


def share_of_wins(answers: Sequence[Record], score: Callable[[Record], float]) -> float:
    """Return how many answers have a higher score than the answer before, as a share; a tie counts as half."""
    wins = 0.0

    for answer in answers:
        now = score(answer)
        before = score(answer["before"])
        wins += (now > before) + (now == before) / 2

    return wins / len(answers)
