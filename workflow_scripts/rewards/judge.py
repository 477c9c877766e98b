"""The opinion of a judge: a language model behind an endpoint, which reads a rubric, the question and the answer.

It grades the answer from 1 to 10, which becomes a value from 0 to 1, or compares it with the reference: 1 if it is
better, 0.5 for a tie, 0 if it is worse. Which of the two is shown first is drawn from the answer's id, and a share of
the pairs is shown in both orders (`_pairs.py`). Each request is paid for once.
"""

import re
from collections.abc import Sequence
from typing import Any

from workflow_scripts import engines
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.engines import Chat, Reply
from workflow_scripts.rewards import Reward
from workflow_scripts.rewards._pairs import CRITERION, Pair, judge_pairs, position_bias, read_rubric  # noqa: F401  for the stage
from workflow_scripts.rewards._parts import Value, decided, printable, references_of, undecided

NEEDS_JUDGE = True

LOWEST, HIGHEST = 1, 10
QUESTION = """How good is an answer to an instruction?

{criterion}

Instruction:
{question}

Answer:
{answer}

Reply with one number from 1 (worst) to 10 (best)."""
GRADE = re.compile(r"(?:.*\bgrade\W*)?(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*", re.IGNORECASE)


def make(model: str | None = None) -> Reward:
    raise BadInput("reward judge: list it as a part, as in `reward: [{reward: judge, judge: {…}}]`")


def grade(reply: Reply) -> Value:
    """Return the grade in a reply's last line, as a value from 0 to 1."""
    if reply.rejected:
        return undecided(f"the judge gave no answer: {reply.rejected}")

    last = (reply.text.strip().splitlines() or [""])[-1]
    match = GRADE.fullmatch(last.strip(" *_`"))
    number = float(match[1]) if match else None
    if number is None or not LOWEST <= number <= HIGHEST:
        return undecided(f"the judge gave no number from {LOWEST} to {HIGHEST}: {last!r:.60}")

    return decided((number - LOWEST) / (HIGHEST - LOWEST))


class Judging:
    """Asks a judge about answers."""

    def __init__(self, settings: dict[str, Any], against: str | None, name: str, ledger: Any):
        """
        Args:
            settings: the config section `judge` of the part, as JSON.
            against: "reference", or None to grade each answer by itself.
            name: the part's name, for messages and the account.
            ledger: the run's ledger of paid requests.
        """
        self.settings = settings
        self.against = against
        self.criterion = read_rubric(settings["rubric"]) or CRITERION
        self.engine = engines.load(
            "openai",
            settings=settings["openai"],
            sampling=settings,
            stop=(),
            purpose=f"reward {name}",
            ledger=ledger,
        )

    def close(self) -> None:
        self.engine.close()

    def values(self, answers: Sequence[dict[str, Any]]) -> list[Value]:
        """Return the value of each answer."""
        if self.against is None:
            replies = self.engine.generate([self._chat(answer) for answer in answers])
            return [grade(reply) for reply in replies]

        pairs = []
        for answer in answers:
            references = references_of(answer)
            if not references:
                raise BadInput(f"reward judge: record {answer['uid']} has no reference to compare with")
            pairs.append(Pair(answer["uid"], answer["question"], answer["answer"], references[0]))

        judged = judge_pairs(self.engine, pairs, self.settings, self.criterion)
        return [
            decided(one.value) | {"preferred": one.preferred} if one.value is not None else undecided(one.reason or "")
            for one in judged
        ]

    def _chat(self, answer: dict[str, Any]) -> Chat:
        content = QUESTION.format(
            criterion=self.criterion, question=answer["question"], answer=printable(answer["answer"].strip())
        )
        seed = int(digest(["grade", answer["uid"]]), 16) % 2**31
        return Chat([{"role": "user", "content": content}], seed, self.settings["max_tokens"])
