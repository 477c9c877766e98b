"""The records that travel through a round, and how they are streamed from files.

One fact has one name from the prompt to the training row. `docs/files.md` lists every field with its type and unit.
A task may add fields of its own to a prompt; they stay with the answers to it.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import parse_json, read_json
from workflow_scripts.core.pickles import read_pickle

READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".pkl")

Piece = tuple[str, bool]  # a stretch of text, and whether the policy wrote it (else the environment did)


class Message(TypedDict):
    """One turn of a conversation."""

    role: str  # user, assistant or system
    content: str


class Prompt(TypedDict):
    """A question that a policy answers."""

    id: str  # unique in its split; by default a digest of the question
    question: str  # what is asked, as text
    reference: Any  # what an answer is compared with: text, a list of texts, tests; its form is the task's
    level: str  # the group of questions by which metrics are listed
    set: NotRequired[str]  # the eval set that the prompt is from, if there are several
    messages: NotRequired[list[Message]]  # the conversation so far, where it is more than the question
    fault: NotRequired[str | None]  # why the prompt cannot be used; such prompts become rejects


class WorkedExample(TypedDict):
    """A question with an answer to learn from, for the cold start."""

    question: str
    pieces: list[Piece]  # the answer
    trigger: str  # how the question is asked: "auto", or one of the conversation's triggers
    fault: NotRequired[str]  # why the example cannot be used; such examples become rejects


class Answer(Prompt):
    """A policy's answer to a prompt, as text and as the tokens that were sampled."""

    uid: str  # {id}.{trigger}.{number of the sample}
    trigger: str  # "auto", or the trigger that was added to the question
    prompt_text: str  # the rendered prompt
    answer: str
    prompt_tokens: list[int]
    tokens: list[int]  # of the answer, what the environment wrote included
    mask: list[int]  # 1 = sampled by the policy, 0 = written by the environment
    finish: str  # eos, stop, length, turns (no turns left) or imported
    sampled_logps: list[float]  # of the sampled tokens, by the engine; empty if the engine gives none
    policy: str  # digest of the checkpoint that answered, or "foreign"
    turns: NotRequired[list[Message]]  # the turns since the prompt, in a dialogue
    draws: NotRequired[int]  # how often the answer was drawn until its form was right


class GradedAnswer(Answer):
    """An answer with its reward. Tasks add fields that explain the reward."""

    reward: float


class MetaEntry(TypedDict):
    """The graded answers to one prompt."""

    id: str
    question: str
    reference: Any
    level: str
    prompt_text: str
    answers: list[dict[str, Any]]  # of the fields of GradedAnswer, those that differ between the answers


class Row(TypedDict):
    """A row that training reads: the tokens of one answer and how much to learn from them."""

    uid: str
    prompt_text: str
    answer: str
    prompt_tokens: list[int]
    tokens: list[int]
    mask: list[int]
    policy: str
    question: NotRequired[str]
    reference: NotRequired[Any]
    kind: NotRequired[str]  # how the row was selected
    source: NotRequired[str]  # where the answer comes from
    reward: NotRequired[float]
    advantage: NotRequired[float]
    pair: NotRequired[str]  # the preference pair that the row belongs to; its rows are neighbours
    finish: NotRequired[str]


def conserve(stage: str, rows_in: int, rows_out: int, rejects: int) -> None:
    """Check that every record that came in went out or was rejected. Every record stage ends here."""
    if rows_in != rows_out + rejects:
        raise AssertionError(f"{stage}: {rows_in} rows in, {rows_out} out and {rejects} rejected")


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Stream records from a .jsonl, .json (a list, or lines), .csv, .tsv, .parquet or .pkl (a list) file.

    Raise BadInput, with the line, for a file that cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise BadInput(f"{path}: is a pipe or a device; records are read several times, so they need a file")

    try:
        yield from _stream(path)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error})") from None


def _stream(path: Path) -> Iterator[dict[str, Any]]:
    match path.suffix:
        case ".jsonl":
            yield from _stream_lines(path)
        case ".json":
            yield from _read_json_records(path)
        case ".csv" | ".tsv":
            yield from _stream_separated(path, "," if path.suffix == ".csv" else "\t")
        case ".parquet":
            yield from _stream_parquet(path)
        case ".pkl":
            yield from _check_list(path, read_pickle(path))
        case other:
            raise BadInput(f"{path}: records are read from {', '.join(READABLE)} files, not {other!r}")


def _read_json_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a list, or of objects line by line, which some systems name .json too."""
    with open(path, encoding="utf-8-sig") as file:
        start = list(islice((line.strip() for line in file if line.strip()), 2))

    if len(start) == 2 and all(line.startswith("{") and line.endswith("}") for line in start):
        yield from _stream_lines(path)
    else:
        yield from _check_list(path, read_json(path))


def _stream_lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _parse_line(path, number, line)


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    record = parse_json(f"{path}, line {number}", line)

    if not isinstance(record, dict):
        raise BadInput(f"{path}, line {number}: expected an object, found {type(record).__name__}")

    return record


def _check_list(path: Path, value) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        items = {type(item).__name__ for item in value} - {"dict"} if isinstance(value, list) else set()
        inside = f" with {', '.join(sorted(items))} in it" if items else ""
        raise BadInput(f"{path}: expected a list of records, found {type(value).__name__}{inside}")

    return value


def _stream_separated(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # an answer may be longer than the csv module's 128 KiB

    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)

        try:
            header = next(lines, [])
            _check_header(path, header)

            for cells in lines:
                if cells and len(cells) != len(header):
                    raise BadInput(
                        f"{path}, line {lines.line_num}: {len(cells)} cells, but the header has {len(header)} "
                        "(text that contains the separator needs quotes)"
                    )
                if cells:
                    yield dict(zip(header, cells))
        except csv.Error as error:
            raise BadInput(f"{path}, line {lines.line_num}: {error} (is a quote left open?)") from None


def _stream_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_header(path, file.schema_arrow.names)

        for group in range(file.num_row_groups):  # all groups at once would hold the whole file in memory
            for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the file system, not of the contents
        raise BadInput(f"{path}: not a Parquet file, or a damaged one ({error})") from None


def _check_header(path: Path, names: list[str]) -> None:
    """Raise BadInput if two columns have one name."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInput(f"{path}: two columns are named {repeated[0]!r}")
