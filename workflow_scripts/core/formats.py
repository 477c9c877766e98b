"""The data formats that people have, read into training rows.

sft         `messages`; else `prompt` and `response` or `completion`, `question` and `response`, or Alpaca's
            `instruction`, `input` and `output`. Text is a turn of the conversation, lists of messages are several.
rewarded    CodeRL's: `uid` (else `qid` and `sample_id`), a prompt, a response and a reward. The response is kept as it
            is: CodeRL cut the characters of "python" off both of its ends (`str.strip`).
preference  OpenRLHF's and TRL's: `chosen` and `rejected`, as text or as messages, with a `prompt` or both beginning
            with it. A prompt as text is asked with the template; where both answers are text that begins with its
            prompt, they are taken as they are, as TRL does.

Nobody knows the policy that wrote them: all rows are `foreign`.
"""

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from workflow_scripts.core.chat import Reject, check_messages, encode_answer, encode_turns
from workflow_scripts.core.cli import progress
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import BadInput, conserve, digest, read_records

PAIRS = (("prompt", "response"), ("prompt", "completion"), ("question", "response"), ("instruction", "output"))
ID_COLUMNS = (("uid",), ("qid", "sample_id"), ("id",))  # the first that a file has
READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".pkl")


# ---------------------------------------------------------------- reading


def read_source(file: str, split: str, revision: str | None = None) -> Iterator[dict]:
    """Stream the records of a file, of a folder that `datasets` saved or can read, or of a data set on the hub."""
    if Path(file).is_file():
        yield from read_records(file)
        return
    if not Path(file).is_dir() and (file.endswith(READABLE) or file.startswith(("/", ".", "~"))):
        raise BadInput(f"there is no file {file}")
    import datasets

    datasets.disable_progress_bars()
    try:
        if any((Path(file) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(file)
        else:
            found = datasets.load_dataset(file, revision=revision)
    except (OSError, ValueError) as error:  # what datasets raises for missing, unreachable and unreadable data
        raise BadInput(f"{file}: neither a file here nor a data set that can be loaded ({error})") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise BadInput(f"{file}: has no split {split!r}, only {', '.join(found)}")
        found = found[split]
    yield from found


def existing_answers(file: str) -> dict[str, str]:
    """{prompt's id: answer} of a file with id and response, as BLEUBERI keeps its inference."""
    texts: dict[str, str] = {}
    for number, record in enumerate(read_records(file), 1):
        if not {"id", "response"} <= set(record) or str(record["id"]) in texts:
            raise BadInput(f"{file}, record {number}: needs an id of its own and a response, found {sorted(record)}")
        texts[str(record["id"])] = record["response"] or ""
    return texts


def find_columns(source: dict, found: set[str]) -> dict[str, str]:
    """{what: the column that holds it} of a format; BadInput if one is missing."""
    match source["format"]:
        case "sft":
            pair = next((pair for pair in PAIRS if found.issuperset(pair)), None)
            if "messages" not in found and not pair:
                pairs = "; ".join(" and ".join(pair) for pair in PAIRS)
                raise BadInput(_lacks(source, f"`messages` or any of: {pairs}", found))
            columns = {"messages": "messages"} if "messages" in found else dict(zip(("prompt", "answer"), pair))
        case "rewarded":
            columns = {"prompt": source["prompt_key"] or "prompt_pretokenized"}
            columns |= {"reward": source["reward_key"], "answer": source["response_key"]}
        case "preference":
            prompt = source["prompt_key"] or ("prompt" if "prompt" in found else None)
            columns = {"chosen": source["chosen_key"], "rejected": source["rejected_key"]}
            columns |= {"prompt": prompt} if prompt else {}
    if missing := [column for column in columns.values() if column not in found]:
        raise BadInput(_lacks(source, ", ".join(map(repr, missing)), found))
    if source["format"] == "rewarded" and "uid" not in found and not found.issuperset(("qid", "sample_id")):
        raise BadInput(_lacks(source, "`uid`, or `qid` and `sample_id`", found))
    return columns


def _lacks(source: dict, what: str, found: set[str]) -> str:
    return f"{source['file']}: format {source['format']} needs {what}; its columns are {', '.join(sorted(found))}"


def given_id(record: dict, found: set[str]) -> str | None:
    """A record's own id; None in a file without any. Reject if it has none where others do."""
    keys = next((keys for keys in ID_COLUMNS if found.issuperset(keys)), ())
    parts = [record.get(key) for key in keys]
    if any(part is None or part == "" or part != part for part in parts):  # NaN: pandas' None
        raise Reject(f"no {' and '.join(keys)}")
    return "-".join(map(str, parts)) or None


def has_solutions(file: str) -> bool:
    """Whether a file has questions with worked solutions, which are the task's to read (`worked_examples`)."""
    found = set(next(read_source(file, "train"), {}))
    return bool(found & {"question", "q"} and found & {"solution", "s"})


def sft_texts(file: str, template: str) -> Iterator[str]:
    """The conversations of a file of format sft as text, under a named template; what cannot be used is passed over."""
    columns = None
    for record in read_source(file, "train"):
        columns = columns or find_columns({"file": file, "format": "sft"}, set(record))
        with contextlib.suppress(Reject):
            messages, _ = sft(record, columns, template)
            texts = [(message["role"] == "user", message["content"]) for message in messages]
            yield "".join(render(template, text) if asked else text for asked, text in texts)


# ---------------------------------------------------------------- one record


def text_of(record: dict, column: str, what: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise Reject(f"{column} should be text, found {value!r:.60}")
    if not value.strip():
        raise Reject(f"the {what} is empty")
    return value


def turns_of(record: dict, column: str, role: str) -> list[dict]:
    """A column as messages: a list of them, or text as one of `role`. CodeRL's prompt is a list as JSON text."""
    value = record.get(column)
    if column == "prompt_pretokenized":
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, TypeError) as error:
            raise Reject(f"{column} is not JSON ({error})") from None
        return check_messages(value, column)
    if isinstance(value, str) and value.startswith("[{"):
        with contextlib.suppress(ValueError):
            found = json.loads(value)
            if all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in found):
                value = found  # else it is text that is JSON itself
    if isinstance(value, list):
        return check_messages(value, column)
    return [{"role": role, "content": text_of(record, column, "prompt" if role == "user" else "response")}]


def sft(record: dict, columns: dict, template: str) -> tuple[list[dict], int]:
    """(messages, where the answer begins)."""
    if "messages" in columns:
        messages = check_messages(record.get("messages"), "messages")
        roles = [message["role"] for message in messages]
        if "assistant" not in roles:
            raise Reject("no message by the assistant")
        return messages, roles.index("assistant")
    prompt = turns_of(record, columns["prompt"], "user")
    answer = turns_of(record, columns["answer"], "assistant")
    if columns["prompt"] == "instruction" and record.get("input"):
        text_of(record, "input", "input")
        between = "\n\n### Input:\n" if template == "alpaca" else "\n\n"  # as in Stanford Alpaca
        prompt = [prompt[0] | {"content": prompt[0]["content"] + between + record["input"]}]
    return prompt + answer, len(prompt)


def preference(record: dict, columns: dict) -> tuple[list[dict] | str, list | str, list | str]:
    """(prompt, chosen, rejected) as messages, or as text where both answers are text that begins with its prompt."""
    values = [record.get(columns[side]) for side in ("chosen", "rejected")]
    if values[0] == values[1]:
        raise Reject("chosen and rejected are the same")
    if "prompt" not in columns and record.get("prompt"):
        raise Reject("it has a prompt, and the first record has none")
    given = turns_of(record, columns["prompt"], "user") if "prompt" in columns else []
    if not given and all(isinstance(value, str) for value in values):
        return _split_texts(*values)
    chosen, rejected = (turns_of(record, columns[side], "assistant") for side in ("chosen", "rejected"))
    if chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return given, chosen, rejected
    start = shared(chosen, rejected)
    if given and given != chosen[max(0, start - len(given)) : start]:
        raise Reject("chosen and rejected do not begin with the prompt")
    if not all(rest and rest[0]["role"] == "assistant" for rest in (chosen[start:], rejected[start:])):
        raise Reject("chosen and rejected do not answer the same prompt")
    return chosen[:start], chosen[start:], rejected[start:]


def shared(left, right) -> int:
    """How many elements two sequences have in common at their beginnings."""
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))


def _split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The prompt is what both begin with (as TRL's extract_prompt has it), but ends with a whole word."""
    start = shared(chosen, rejected)
    head = chosen[:start]
    if any(text[start : start + 1].isalnum() for text in (chosen, rejected)):
        head = re.sub(r"\w+$", "", head)
    head = head.removesuffix(" ")
    if not head:
        raise Reject("there is no prompt, and chosen and rejected begin differently")
    return head, chosen[len(head) :], rejected[len(head) :]


def reward_of(record: dict, column: str) -> float:
    """A finite number (text in a CSV file)."""
    value = record.get(column)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Reject(f"the reward {column} should be a finite number, found {value!r:.60}")
    return number


# ---------------------------------------------------------------- rows


def encode_record(
    record: dict, columns: dict, source: dict, tokenizer, template: str, segments: Callable
) -> list[dict]:
    """The rows of one record, without ids."""
    if source["format"] == "sft":
        messages, start = sft(record, columns, template)
        return [_turns(tokenizer, template, messages, start) | {"advantage": 1.0}]
    if source["format"] == "rewarded":
        prompt, answer = turns_of(record, columns["prompt"], "user"), text_of(record, columns["answer"], "response")
        reward = reward_of(record, columns["reward"])
        row = encode_answer(tokenizer, template, prompt, segments(answer))
        return [row | {"instruction": _asked(prompt), "reward": reward}]
    prompt, *answers = preference(record, columns)
    if isinstance(prompt, str):
        rows = [encode_answer(tokenizer, template, prompt, [(answer, True)]) for answer in answers if answer.strip()]
    else:
        rows = [_turns(tokenizer, template, prompt + answer, len(prompt)) for answer in answers]
    if len(rows) < 2:
        raise Reject("the response is empty")
    return [{"instruction": prompt} | row | {"advantage": sign} for row, sign in zip(rows, (1.0, -1.0))]


def _asked(messages: list[dict]) -> str:
    """What the user said last."""
    return next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")


def _turns(tokenizer, template: str, messages: list[dict], start: int) -> dict:
    if any(message["role"] == "assistant" and not message["content"].strip() for message in messages[start:]):
        raise Reject("the response is empty")
    return encode_turns(tokenizer, template, messages, start) | {"instruction": _asked(messages[:start])}


def read_rows(source: dict, tokenizer, template: str, segments: Callable) -> tuple[list[dict], list[dict]]:
    """(training rows, rejects {row, id, reason}); a pair is two rows.

    `segments` says which parts of a rewarded answer the environment wrote. BadInput for columns that are missing and
    ids that come twice; records of a file without ids get a digest of their texts, numbered if they come again.
    """
    if tokenizer.eos_token is None:
        raise BadInput("the tokenizer has no EOS token, so nothing can say where an answer ends")
    rows, rejects, seen, number = [], [], Counter(), 0
    records = read_source(source["file"], source["split"], source["revision"])
    for number, record in enumerate(progress(records, total=None, desc=source["format"], unit="record"), 1):
        if number == 1:  # in the first record the columns are wrong, in a later one the record
            found = set(record)
            columns = find_columns(source, found)
        name = None
        try:
            if name := given_id(record, found):
                seen[name] += 1
                if seen[name] > 1:
                    raise BadInput("this id occurs before; ids must be unique")
            made = encode_record(record, columns, source, tokenizer, template, segments)
        except Reject as reason:
            rejects.append({"row": number, "id": name, "reason": str(reason)})
            continue
        except BadInput as error:
            raise BadInput(f"{source['file']}, row {number}{f', id {name}' if name else ''}: {error}") from None
        rows += _named(made, name, seen)
    kept = {row.get("pair", row["qid"]) for row in rows}
    conserve(f"import of {source['file']}", number, len(kept), len(rejects))
    return rows, rejects


def left_out(rejects: list[dict], dropped: Counter) -> str:
    """How many records were left out for which reasons, the five most frequent ones."""
    counts = Counter(reject["reason"] for reject in rejects) + dropped
    return "; ".join(f"{count} × {reason}" for reason, count in counts.most_common(5)) or "nothing"


def _named(rows: list[dict], name: str | None, seen: Counter) -> list[dict]:
    """Rows with their qid; those of a pair also with what they have in common."""
    if name is None and rows:
        text = digest([[row["req"], row["output"]] for row in rows])
        name = f"{text}.{seen[text]}" if seen[text] else text
        seen[text] += 1
    if len(rows) == 2:
        return [
            {"qid": f"{name}.{side}", "pair": name} | row | {"policy": "foreign"}
            for row, side in zip(rows, ("chosen", "rejected"))
        ]
    return [{"qid": name} | row | {"policy": "foreign"} for row in rows]
