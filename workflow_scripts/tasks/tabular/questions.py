"""Write the questions about tables: to the generator for a new row, to a task model for the target of a row."""

from collections.abc import Sequence
from typing import NamedTuple

from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text

WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def row_question(samples: Sequence[Row], target: str, task: str) -> str:
    """Return what the generator is asked: the samples, the number of features, the target and its kind."""
    features = _in_words(len(samples[0]) - 1)
    lines = "\n".join(map(as_text, samples))
    return (
        f"Here are {_in_words(len(samples))} samples of a table with {features} features and the target "
        f'"{target}" ({task}):\n{lines}\nWrite exactly one new sample like these as JSON.'
    )


def _in_words(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else str(count)


class TargetQuestion(NamedTuple):
    """A task model's question about a row. A further example may stand between the two parts of the text."""

    before: str
    after: str
    reference: str  # the right answer


def target_question(schema: Schema, candidates: Sequence[str], examples: Sequence[Row], row: Row) -> TargetQuestion:
    """Return the question for the target of a row, after examples.

    Args:
        schema: the table's schema.
        candidates: the answers that a task model chooses among.
        examples: rows that are shown with their answers.
        row: the row whose target is asked for.
    """
    lines = [example_line(schema, candidates, example) for example in examples]
    before = f'What is "{schema.target}" in the last row?\n' + "".join(lines)
    return TargetQuestion(before, _features_as_text(schema, row), nearest_candidate(schema, candidates, row))


def example_line(schema: Schema, candidates: Sequence[str], row: Row) -> str:
    """Return a row as an example for a task model: one line with its features and the answer."""
    return f"{_features_as_text(schema, row)} {nearest_candidate(schema, candidates, row)}\n"


def nearest_candidate(schema: Schema, candidates: Sequence[str], row: Row) -> str:
    """Return the candidate that a row's target is, or, for a quantity, is nearest to."""
    value = row[schema.target]
    if schema.task == "classification":
        return str(value)
    return min(candidates, key=lambda candidate: abs(float(candidate) - float(value)))  # type: ignore[arg-type]


def _features_as_text(schema: Schema, row: Row) -> str:
    return as_text({name: row[name] for name in schema.features})
