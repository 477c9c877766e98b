"""The questions of the task `math`: from a file or data set, or made up."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.arithmetic import made_up_prompts
from workflow_scripts.tasks.math.extraction import boxed, claimed

# The keys of question and reference in MATH-500, MATH, AutoCode's seed data, and what AutoCode's inference reads.
PUBLISHED = (("problem", "answer"), ("problem", "solution"), ("q", "gold"), ("question", "gold_list"))
LONGEST = 20  # words of a reference that is not marked as a final answer


class Prompts(defaults.Prompts):
    """Questions with the final answer as reference, which may stand at the end of a worked solution."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        if source["count"]:
            yield from made_up_prompts(source["count"], split, seed)
            return

        for prompt in defaults.file_prompts(source, split, PUBLISHED):
            text = as_text(prompt["reference"])
            prompt["reference"] = text if text is None else final_answer(text)
            if text is not None and prompt["reference"] is None:
                prompt["reference"] = text
                prompt["fault"] = "the reference is a worked solution without a marked final answer (#### or \\boxed)"
            yield prompt


def as_text(reference: Any) -> str | None:
    """Return a reference as text; the original's gold_list, and its [text, number], hold it in the first place."""
    if isinstance(reference, list):
        reference = reference[0] if reference else None

    is_nan = reference != reference  # pandas writes a missing number as NaN
    return str(reference) if isinstance(reference, str | int | float) and not is_nan else None


def final_answer(text: str) -> str | None:
    """Return the final answer that a reference states, or None if it is a worked solution that marks none.

    GSM8K's solutions end with "#### 18", MATH's state the answer as \\boxed{…}, others as "The answer is …". A short
    reference is the answer itself.
    """
    if "####" in text:
        return text.rsplit("####", 1)[1].strip()
    if answers := boxed(text):
        return answers[-1].strip()
    if answers := claimed(text):
        return answers[-1].strip()

    is_short = "\n" not in text.strip() and len(text.split()) <= LONGEST
    return text if is_short else None


def references_of(reference: Any) -> list[str]:
    """Return the final answers that count as right: of one reference, or of a list of ways to write it.

    References of answers that were graded elsewhere may be worked solutions, as published.
    """
    texts = [as_text(item) for item in reference] if isinstance(reference, list) else [as_text(reference)]
    return [final_answer(text) or text for text in texts if text is not None]
