"""1 if the whole answer matches a regular expression, else 0.

The dot matches line ends too. The default asks for reasoning and answer in tags, as DeepSeek-R1's format reward does
(arXiv 2501.12948, section 2.2.2). A match that takes longer than a second is undecided.
"""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.rewards import Reward
from workflow_scripts.rewards._parts import Undecided

OPTIONS = {"pattern": r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"}
PACKAGES = ("regex",)
SECONDS = 1.0


def make(model: str | None = None, options: dict[str, Any] = OPTIONS) -> Reward:
    import regex  # has a time limit, which `re` lacks

    try:
        pattern = regex.compile(options["pattern"], regex.DOTALL)
    except regex.error as error:
        raise BadInput(f"reward format: options.pattern is no regular expression: {error}") from None

    def matches(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        try:
            return float(pattern.fullmatch(answer, timeout=SECONDS) is not None)
        except TimeoutError:
            raise Undecided(f"the pattern was not matched within {SECONDS:g} s") from None

    return matches
