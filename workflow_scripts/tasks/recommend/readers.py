"""Published data sets of recommendation dialogues.

INSPIRED   a .tsv of utterances (Hayati et al. 2020, github.com/sweetpeach/Inspired). The target is what the
           recommender names last, where the seeker accepted it. The dialogue ends before the target is first named.
ReDial     JSON lines of dialogues (Li et al. 2018, redialdata.github.io), or the data set on the hub, where lists stand
           in place of objects by film. Targets are films that the recommender suggested and that the seeker likes. The
           dialogue ends before one of them is first named.
processed  records with `dialog` and `target_items`, as in the original's own .json and .jsonl files.

Each is read from a file, from a folder of `datasets`, or from the hub.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import Any, TypedDict

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import normalise, record_id
from workflow_scripts.core.records import Message
from workflow_scripts.core.sources import read_source

Record = dict[str, Any]
Utterance = tuple[str, str]  # role and text

ROLES = {"SEEKER": "user", "RECOMMENDER": "assistant"}
INSPIRED = ("dialog_id", "speaker", "text", "movies", "movie_dict", "fine_label")
REDIAL = (
    "conversationId",
    "messages",
    "movieMentions",
    "initiatorWorkerId",
    "respondentQuestions",
    "initiatorQuestions",
)


class Dialogue(TypedDict):
    """A dialogue of a data set."""

    id: str
    dialog: list[Message]  # by user and assistant alternately; what one speaker says in a row is one message
    target_items: list[str]
    level: str
    mentioned: list[str]  # all titles, in order
    fault: str | None  # why the dialogue cannot be used


def read_dialogues(
    file: str, split: str = "train", revision: str | None = None, subset: str | None = None
) -> Iterator[Dialogue]:
    """Stream the dialogues of a file, a folder of `datasets`, or a data set on the hub.

    Its columns say which data set it is; raise BadInput if they are of none. `split`, `revision` and `subset` are for
    data sets.
    """
    records = iter(read_source(file, split, revision, subset))
    first = next(records, None)
    if first is None:
        raise BadInput(f"{file}: the file has no records")

    records = chain([first], records)
    if "dialog_id" in first:
        _check_columns(file, first, INSPIRED)
        for name, rows in groupby(records, key=lambda row: row["dialog_id"]):
            yield inspired(str(name), [row | {"movies": row["movies"] or ""} for row in rows])
    elif "movieMentions" in first:
        _check_columns(file, first, REDIAL)
        yield from map(redial, records)
    else:
        _check_columns(file, first, ("dialog", "target_items"))
        yield from map(processed, records)


def _check_columns(file: str, first: Record, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in first]
    if missing:
        raise BadInput(
            f"{file}, record 1: has no {missing[0]!r}, only {', '.join(map(repr, first))}; dialogues are INSPIRED's "
            f"({', '.join(INSPIRED)}), ReDial's ({', '.join(REDIAL)}), or have dialog and target_items"
        )


def make_dialogue(
    name: str,
    utterances: list[Utterance],
    targets: list[str],
    level: str,
    mentioned: list[str],
    fault: str | None = None,
) -> Dialogue:
    """Return a dialogue that ends with the seeker, or with a fault if nothing is said before a target is named."""
    messages: list[Message] = []
    for role, text in utterances:
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f" {text}"
        else:
            messages.append({"role": role, "content": text})

    while messages and messages[-1]["role"] == "assistant":  # it is the recommender's turn now
        messages.pop()

    if not fault and not targets:
        fault = "no target item"
    if not fault and not messages:
        fault = "the seeker says nothing before a target is named"

    return {
        "id": name,
        "dialog": messages,
        "target_items": targets,
        "level": level,
        "mentioned": mentioned,
        "fault": fault,
    }


def faulty(name: str, level: str, fault: str) -> Dialogue:
    """Return a dialogue that cannot be read."""
    return make_dialogue(name, [], [], level, [], fault)


# ---------------------------------------------------------------- INSPIRED


def inspired(name: str, rows: list[Record]) -> Dialogue:
    """Return a dialogue of INSPIRED from the rows of its utterances."""
    if fault := _inspired_fault(rows):
        return faulty(name, "inspired", fault)

    titles_by_row = [titles_in(row) for row in rows]
    mentioned = list(dict.fromkeys(title for titles in titles_by_row for title in titles))
    for title in map(normalise, ast.literal_eval(rows[0]["movie_dict"])):
        if title not in mentioned:
            mentioned.append(title)

    recommended = [titles for row, titles in zip(rows, titles_by_row) if titles and row["speaker"] == "RECOMMENDER"]
    targets = recommended[-1][-1:] if recommended else []
    end = len(rows)
    for number, titles in enumerate(titles_by_row):
        if set(titles) & set(targets):
            end = number
            break

    utterances = [(ROLES[row["speaker"]], normalise(row["text"])) for row in rows[:end]]
    is_rejected = rows[0]["fine_label"] == "reject"
    fault = "the seeker rejected what was recommended" if is_rejected else None
    return make_dialogue(name, utterances, targets, "inspired", mentioned, fault)


def titles_in(row: Record) -> list[str]:
    """Return the titles that an utterance of INSPIRED names."""
    return [title for part in row["movies"].split(";") if (title := normalise(part))]


def _inspired_fault(rows: list[Record]) -> str | None:
    for row in rows:
        if row["speaker"] not in ROLES:
            return (
                f"utterance {row.get('utt_id')}: speaker should be SEEKER or RECOMMENDER, found {row['speaker']!r:.40}"
            )
        if not (row["text"] or "").strip():
            return f"utterance {row.get('utt_id')}: no text"

    if not re.match(r"accept|reject$", rows[0]["fine_label"] or ""):
        return f"fine_label should be accept… or reject, found {rows[0]['fine_label']!r:.40}"

    try:
        titles = ast.literal_eval(rows[0]["movie_dict"] or "")
    except (ValueError, SyntaxError):
        titles = None
    if not isinstance(titles, dict) or not all(isinstance(title, str) for title in titles):
        return f"movie_dict should be a dict, found {rows[0]['movie_dict']!r:.40}"

    return None


# ---------------------------------------------------------------- ReDial


def redial(record: Record) -> Dialogue:
    """Return a dialogue of ReDial."""
    name = str(record.get("conversationId"))
    record = by_film(record)
    if fault := _redial_fault(record):
        return faulty(name, "redial", fault)

    films = {number: normalise(str(title)) for number, title in (record.get("movieMentions") or {}).items() if title}
    suggested = record.get("respondentQuestions") or {}
    liked = record.get("initiatorQuestions") or {}
    targets = []
    for number in films:
        is_suggested = (suggested.get(number) or {}).get("suggested") == 1
        if is_suggested and (liked.get(number) or {}).get("liked") == 1:
            targets.append(number)

    speakers = (record["initiatorWorkerId"], record.get("respondentWorkerId"))
    utterances: list[Utterance] = []
    for number, message in enumerate(record["messages"], 1):
        text = message.get("text")
        if not isinstance(text, str) or message.get("senderWorkerId") not in speakers:
            return faulty(name, "redial", f"message {number}: no text, or by neither of both speakers")
        if any(re.search(rf"@{number}\b", text) for number in targets):
            break
        text = re.sub(r"@(\d+)", lambda match: films.get(match[1], match[0]), text)
        if text.strip():
            role = "user" if message["senderWorkerId"] == record["initiatorWorkerId"] else "assistant"
            utterances.append((role, normalise(text)))

    titles = list(dict.fromkeys(films[number] for number in targets))
    return make_dialogue(name, utterances, titles, "redial", list(dict.fromkeys(films.values())))


def by_film(record: Record) -> Record:
    """Return a record with objects by film in place of the lists that the data set on the hub has."""
    changes: Record = {}

    for key in ("movieMentions", "respondentQuestions", "initiatorQuestions"):
        entries = record.get(key)
        if isinstance(entries, list) and all(isinstance(entry, dict) and "movieId" in entry for entry in entries):
            is_title = key == "movieMentions"
            changes[key] = {str(entry["movieId"]): entry.get("movieName") if is_title else entry for entry in entries}

    return record | changes


def _redial_fault(record: Record) -> str | None:
    films = record.get("movieMentions") or {}  # [] if no film is mentioned
    messages = record.get("messages")
    if not isinstance(films, dict) or not isinstance(messages, list):
        return "movieMentions should be an object and messages a list"

    for side in ("respondentQuestions", "initiatorQuestions"):
        questions = record.get(side) or {}
        if not isinstance(questions, dict) or not all(isinstance(answers, dict) for answers in questions.values()):
            return "the questions should be an object of objects by film"

    if "initiatorWorkerId" not in record or not all(isinstance(message, dict) for message in messages):
        return "no initiatorWorkerId, or messages that are no objects"

    return None


# ---------------------------------------------------------------- processed


def processed(record: Record) -> Dialogue:
    """Return a dialogue from a record with `dialog` and `target_items`."""
    name = str(record.get("id") or record_id(f"{record.get('dialog')} {record.get('target_items')}"))
    if fault := _processed_fault(record):
        return faulty(name, "dialogues", fault)

    titles = list(map(normalise, record["target_items"]))
    utterances = [(message["role"], message["content"]) for message in record["dialog"]]
    level = str(record.get("level") or "dialogues")
    return make_dialogue(name, utterances, titles, level, mentioned=titles)


def _processed_fault(record: Record) -> str | None:
    for key in ("dialog", "target_items"):
        if key not in record:
            return f"no {key}; its keys are {', '.join(record)}"

    messages = record["dialog"]
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        return "dialog should be messages by user and assistant with content"

    targets = record["target_items"]
    if not isinstance(targets, list) or not all(isinstance(title, str) and normalise(title) for title in targets):
        return f"target_items should be titles, found {targets!r:.40}"

    return None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES.values() and isinstance(value.get("content"), str)
