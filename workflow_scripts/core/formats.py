"""The formats in which people keep training data, read into training rows.

sft         `messages`; else `prompt` and `response` or `completion`, `question` and `response`, `input` and `output`,
            or Alpaca's `instruction`, `input` and `output`. Text is one turn of the conversation, a list of messages
            is several.
rewarded    CodeRL's: `uid` (else `qid` and `sample_id`), a prompt, a response and a reward. The response is kept as it
            is; CodeRL cut the characters of "python" off both of its ends (`str.strip`).
preference  OpenRLHF's and TRL's: `chosen` and `rejected` (or `reject`), as text or as messages, with a `prompt` or
            both beginning with it. A prompt that is text is rendered with the template. If both answers are text that
            begins with its prompt, they are taken as they are, as in TRL.

Rows of a run, and those of a task's original system, are a further format, `task` (workflow_scripts/import_data.py).

The policy that wrote such data is unknown, so all rows are `foreign`.
"""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from workflow_scripts.core.chat import check_messages, encode_answer, encode_turns
from workflow_scripts.core.columns import find_columns
from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import Message, Piece, conserve, read_records
from workflow_scripts.core.running.cli import progress
from workflow_scripts.core.sources import records_of
from workflow_scripts.core.templates import render

SOLVED = (  # questions with worked solutions: our own, MATH's, AutoCode's seed data (whose `s` is no solution), GSM8K's
    ("question", "solution"),
    ("problem", "solution"),
    ("q", "a"),
    ("question", "answer"),
)
ID_COLUMNS = (("uid",), ("qid", "sample_id"), ("id",))  # the first of these that a file has

Record = dict[str, Any]
Segments = Callable[[str], list[Piece]]


# ---------------------------------------------------------------- reading


def existing_answers(file: str) -> dict[str, str]:
    """Return {prompt's id: answer} of a file with id and response, in which BLEUBERI keeps its inference."""
    answers: dict[str, str] = {}

    for number, record in enumerate(read_records(file), 1):
        if not {"id", "response"} <= set(record) or str(record["id"]) in answers:
            raise BadInput(f"{file}, record {number}: needs an id of its own and a response, found {sorted(record)}")
        answers[str(record["id"])] = record["response"] or ""

    return answers


def own_id(record: Record, present: set[str]) -> str | None:
    """Return a record's own id, or None in a file without ids. Raise Reject if only this record has none."""
    keys = next((keys for keys in ID_COLUMNS if present.issuperset(keys)), ())
    parts = [record.get(key) for key in keys]

    if any(part is None or part == "" or part != part for part in parts):  # pandas writes None as NaN
        raise Reject(f"no {' and '.join(keys)}")

    return "-".join(map(str, parts)) or None


def worked_keys(source: Record, present: set[str]) -> tuple[str, str] | None:
    """Return the keys of question and worked solution in a cold start's file, or None if it is of another format.

    Without keys of its own, a config takes those of the data sets in SOLVED. Raise BadInput for a key that is missing.
    """
    keys = (source["question_key"], source["solution_key"])
    if present.issuperset(keys):
        return keys
    if keys != SOLVED[0]:
        missing = next(key for key in keys if key not in present)
        raise BadInput(
            f"{source['file']}: there is no column {missing!r}; name the columns of question and solution with "
            f"cold_start.question_key and cold_start.solution_key; its columns are {', '.join(sorted(present))}"
        )

    return next((pair for pair in SOLVED if present.issuperset(pair)), None)


def has_worked_answers(source: Record) -> bool:
    """Return whether a cold start's file has questions with worked solutions, which the task reads itself."""
    return worked_keys(source, set(next(iter(records_of(source)), {}))) is not None


def sft_texts(source: Record, template: str) -> Iterator[str]:
    """Yield the conversations of a source of format sft as text, under a named template. Skip unusable records."""
    columns = None

    for record in records_of(source):
        columns = columns or find_columns({"file": source["file"], "format": "sft"}, set(record))
        with contextlib.suppress(Reject):
            messages, _ = sft_conversation(record, columns, template)
            text = ""
            for message in messages:
                is_question = message["role"] == "user"
                text += render(template, message["content"]) if is_question else message["content"]
            yield text


# ---------------------------------------------------------------- one record


def text_in(record: Record, column: str, meaning: str) -> str:
    """Return a column as text. Raise Reject if it is empty or no text."""
    value = record.get(column)

    if not isinstance(value, str):
        raise Reject(f"{column} should be text, found {value!r:.60}")
    if not value.strip():
        raise Reject(f"the {meaning} is empty")

    return value


def messages_in(record: Record, column: str, role: str) -> list[Message]:
    """Return a column as messages: a list of them, text as one message by `role`, or a list as JSON text (CodeRL)."""
    value = record.get(column)

    if column == "prompt_pretokenized":
        try:
            value = json.loads(value or "")
        except (json.JSONDecodeError, TypeError) as error:
            raise Reject(f"{column} is not JSON ({error})") from None
        return check_messages(value, column)

    if isinstance(value, str) and value.startswith("[{"):
        with contextlib.suppress(ValueError):
            parsed = json.loads(value)
            if all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in parsed):
                value = parsed  # else the text itself is JSON

    if isinstance(value, list):
        return check_messages(value, column)

    return [{"role": role, "content": text_in(record, column, "prompt" if role == "user" else "response")}]


def sft_conversation(record: Record, columns: dict[str, str], template: str) -> tuple[list[Message], int]:
    """Return (messages, the position of the first message of the answer)."""
    if "messages" in columns:
        messages = check_messages(record.get("messages"), "messages")
        roles = [message["role"] for message in messages]
        if "assistant" not in roles:
            raise Reject("no message by the assistant")
        return messages, roles.index("assistant")

    prompt = messages_in(record, columns["prompt"], "user")
    answer = messages_in(record, columns["answer"], "assistant")

    if columns["prompt"] == "instruction" and record.get("input"):
        between = "\n\n### Input:\n" if template == "alpaca" else "\n\n"  # as in Stanford Alpaca
        content = prompt[0]["content"] + between + text_in(record, "input", "input")
        prompt[0] = {"role": prompt[0]["role"], "content": content}

    return prompt + answer, len(prompt)


def preference_pair(
    record: Record, columns: dict[str, str]
) -> tuple[list[Message], list[Message], list[Message]] | tuple[str, str, str]:
    """Return (prompt, chosen, rejected) as messages, or as text if both answers are text that begins with it."""
    values = [record.get(columns[side]) for side in ("chosen", "rejected")]

    if values[0] == values[1]:
        raise Reject("chosen and rejected are the same")
    if "prompt" not in columns and record.get("prompt"):
        raise Reject("it has a prompt, and the first record has none")

    prompt = messages_in(record, columns["prompt"], "user") if "prompt" in columns else []
    if not prompt and isinstance(values[0], str) and isinstance(values[1], str):
        return _split_texts(values[0], values[1])

    chosen, rejected = (messages_in(record, columns[side], "assistant") for side in ("chosen", "rejected"))
    if chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return prompt, chosen, rejected

    start = common_length(chosen, rejected)
    if prompt and prompt != chosen[max(0, start - len(prompt)) : start]:
        raise Reject("chosen and rejected do not begin with the prompt")
    if not all(rest and rest[0]["role"] == "assistant" for rest in (chosen[start:], rejected[start:])):
        raise Reject("chosen and rejected do not answer the same prompt")

    return chosen[:start], chosen[start:], rejected[start:]


def common_length(left, right) -> int:
    """Return how many elements two sequences have in common at their beginnings."""
    shorter = min(len(left), len(right))
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), shorter)


def _split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two texts into what both begin with (as TRL's extract_prompt), up to a whole word, and the rests."""
    start = common_length(chosen, rejected)
    prompt = chosen[:start]

    if any(text[start : start + 1].isalnum() for text in (chosen, rejected)):
        prompt = re.sub(r"\w+$", "", prompt)

    prompt = prompt.removesuffix(" ")
    if not prompt:
        raise Reject("there is no prompt, and chosen and rejected begin differently")

    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def reward_in(record: Record, column: str) -> float:
    """Return a column as a finite number. In a CSV file it is text."""
    value = record.get(column)

    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan

    if not math.isfinite(number):
        raise Reject(f"the reward {column} should be a finite number, found {value!r:.60}")

    return number


# ---------------------------------------------------------------- rows


def encode_record(
    record: Record, columns: dict[str, str], source: Record, tokenizer, template: str, segments: Segments
) -> list[Record]:
    """Return the rows of one record, without ids: two rows for a preference pair, else one."""
    if source["format"] == "sft":
        messages, start = sft_conversation(record, columns, template)
        return [_encode_conversation(tokenizer, template, messages, start) | {"advantage": 1.0}]

    if source["format"] == "rewarded":
        prompt = messages_in(record, columns["prompt"], "user")
        answer = text_in(record, columns["answer"], "response")
        reward = reward_in(record, columns["reward"])
        row = encode_answer(tokenizer, template, prompt, segments(answer))
        return [row | {"question": _last_question(prompt), "reward": reward}]

    prompt, *answers = preference_pair(record, columns)
    if isinstance(prompt, str):
        rows = [
            encode_answer(tokenizer, template, prompt, [(str(answer), True)]) | {"question": prompt}
            for answer in answers
            if str(answer).strip()
        ]
    else:
        rows = [_encode_conversation(tokenizer, template, [*prompt, *answer], len(prompt)) for answer in answers]  # type: ignore

    if len(rows) < 2:
        raise Reject("the response is empty")

    return [row | {"advantage": sign} for row, sign in zip(rows, (1.0, -1.0))]


def _last_question(messages: list[Message]) -> str:
    return next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")


def _encode_conversation(tokenizer, template: str, messages: list[Message], start: int) -> Record:
    if any(message["role"] == "assistant" and not message["content"].strip() for message in messages[start:]):
        raise Reject("the response is empty")

    return encode_turns(tokenizer, template, messages, start) | {"question": _last_question(messages[:start])}


def read_rows(source: Record, tokenizer, template: str, segments: Segments) -> tuple[list[Record], list[Record]]:
    """Return (training rows, rejects with row, id and reason). A preference pair is two rows.

    `segments` tells which parts of a rewarded answer the environment wrote. Records of a file without ids get a digest
    of their texts, with a number if they come again. Raise BadInput for missing columns and for ids that come twice.
    """
    if tokenizer.eos_token is None:
        raise BadInput("the tokenizer has no EOS token, so a model could not learn where an answer ends")

    rows: list[Record] = []
    rejects: list[Record] = []
    seen: Counter[str] = Counter()
    present: set[str] = set()
    columns: dict[str, str] = {}
    number = 0
    records = islice(records_of(source), source.get("limit"))

    for number, record in enumerate(progress(records, total=None, desc=source["format"], unit="record"), 1):
        if number == 1:  # a fault of the first record is one of the columns, a fault of a later one its own
            present = set(record)
            columns = find_columns(source, present)

        name = None
        try:
            if name := own_id(record, present):
                seen[name] += 1
                if seen[name] > 1:
                    raise BadInput("this id occurs before; ids must be unique")
            encoded = encode_record(record, columns, source, tokenizer, template, segments)
        except Reject as reason:
            rejects.append({"row": number, "id": name, "reason": str(reason)})
            continue
        except BadInput as error:
            raise BadInput(f"{source['file']}, row {number}{f', id {name}' if name else ''}: {error}") from None
        rows += _with_ids(encoded, name, seen)

    kept = {row.get("pair", row["uid"]) for row in rows}
    conserve(f"import of {source['file']}", number, len(kept), len(rejects))
    return rows, rejects


def _with_ids(rows: list[Record], name: str | None, seen: Counter[str]) -> list[Record]:
    """Give the rows of one record their uid, and to those of a pair what they have in common."""
    if name is None and rows:
        text = digest([[row["prompt_text"], row["answer"]] for row in rows])
        name = f"{text}.{seen[text]}" if seen[text] else text
        seen[text] += 1

    if len(rows) == 2:
        sides = zip(rows, ("chosen", "rejected"))
        return [{"uid": f"{name}.{side}", "pair": name} | row | {"policy": "foreign"} for row, side in sides]

    return [{"uid": name} | row | {"policy": "foreign"} for row in rows]


def describe_rejects(rejects: list[Record], dropped: Counter) -> str:
    """Return how many records were left out for which reasons: the five most frequent ones."""
    counts = Counter(reject["reason"] for reject in rejects) + dropped
    return "; ".join(f"{count} × {reason}" for reason, count in counts.most_common(5)) or "nothing"
