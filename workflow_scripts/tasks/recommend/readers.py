"""Published data sets of recommendation dialogues, read into {id, dialog, target_items, level, mentioned, fault}.

INSPIRED   a .tsv of utterances (Hayati et al. 2020, github.com/sweetpeach/Inspired): the target is what the
           recommender names last, where the seeker accepted it; the dialogue ends before the target is first named.
ReDial     JSON lines of dialogues (Li et al. 2018, redialdata.github.io): targets are films that the recommender
           suggested and the seeker says it likes; the dialogue ends before one of them is first named.
processed  `dialog` and `target_items`, as the original's own files have them, .json or .jsonl.

`dialog` is messages by `user` (the seeker) and `assistant` (the recommender) in turn; what one speaker says in a row
is one message. `mentioned` are all titles named, in order. `fault` says why a dialogue cannot be used, or None.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import normalise, record_id
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.recommend.items import item

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


def read_dialogues(file: str) -> Iterator[dict]:
    """Stream a file's dialogues; its columns say which data set it is. BadInput if they are of none."""
    records = read_records(file)
    first = next(records, None)
    if first is None:
        raise BadInput(f"{file}: there is nothing in it")
    whole = _chained(first, records)
    if "dialog_id" in first:
        _check(file, first, INSPIRED)
        for name, rows in groupby(whole, key=lambda row: row["dialog_id"]):
            yield inspired(str(name), list(rows))
    elif "movieMentions" in first:
        _check(file, first, REDIAL)
        yield from map(redial, whole)
    else:
        _check(file, first, ("dialog", "target_items"))
        yield from map(processed, whole)


def _chained(first: dict, rest: Iterator[dict]) -> Iterator[dict]:
    yield first
    yield from rest


def _check(file: str, first: dict, columns: Iterable[str]) -> None:
    if missing := [name for name in columns if name not in first]:
        raise BadInput(
            f"{file}, record 1: has no {missing[0]!r}, only {', '.join(map(repr, first))}; dialogues are INSPIRED's "
            f"({', '.join(INSPIRED)}), ReDial's ({', '.join(REDIAL)}), or have dialog and target_items"
        )


def dialogue(name: str, utterances: list[tuple[str, str]], targets: list[str], level: str, **more) -> dict:
    """One that can be used: something is said before the targets are named, and the seeker is the last to speak."""
    messages: list[dict] = []
    for role, text in utterances:
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f" {text}"
        else:
            messages.append({"role": role, "content": text})
    while messages and messages[-1]["role"] == "assistant":  # whose turn it is now
        messages.pop()
    fault = more.pop("fault", None) or (None if targets else "no target item")
    fault = fault or (None if messages else "the seeker says nothing before a target is named")
    found = {"id": name, "dialog": messages, "target_items": targets, "level": level, "mentioned": []}
    return found | {"fault": fault} | more


# ---------------------------------------------------------------- INSPIRED


def inspired(name: str, rows: list[dict]) -> dict:
    if fault := _inspired_fault(rows):
        return dialogue(name, [], [], "inspired", fault=fault)
    named = [[title for part in row["movies"].split(";") if (title := normalise(part))] for row in rows]
    mentioned = list(dict.fromkeys([t for titles in named for t in titles]))
    mentioned += [t for title in ast.literal_eval(rows[0]["movie_dict"]) if (t := normalise(title)) not in mentioned]
    by_recommender = [titles for row, titles in zip(rows, named) if titles and row["speaker"] == "RECOMMENDER"]
    targets = by_recommender[-1][-1:] if by_recommender else []
    end = next((place for place, titles in enumerate(named) if set(titles) & set(targets)), len(rows))
    utterances = [(ROLES[row["speaker"]], normalise(row["text"])) for row in rows[:end]]
    fault = "the seeker rejected what was recommended" if rows[0]["fine_label"] == "reject" else None
    return dialogue(name, utterances, targets, "inspired", mentioned=mentioned, fault=fault)


def _inspired_fault(rows: list[dict]) -> str | None:
    for row in rows:
        if row["speaker"] not in ROLES:
            return (
                f"utterance {row.get('utt_id')}: speaker should be SEEKER or RECOMMENDER, found {row['speaker']!r:.40}"
            )
        if not (row["text"] or "").strip() or row["movies"] is None:
            return f"utterance {row.get('utt_id')}: no text, or columns are missing"
    if not re.match(r"accept|reject$", rows[0]["fine_label"] or ""):
        return f"fine_label should be accept… or reject, found {rows[0]['fine_label']!r:.40}"
    try:
        known = ast.literal_eval(rows[0]["movie_dict"] or "")
    except (ValueError, SyntaxError):
        known = None
    named = isinstance(known, dict) and all(isinstance(title, str) for title in known)
    return None if named else f"movie_dict should be a dict, found {rows[0]['movie_dict']!r:.40}"


# ---------------------------------------------------------------- ReDial


def redial(record: dict) -> dict:
    name = str(record.get("conversationId"))
    films, messages = record.get("movieMentions") or {}, record.get("messages")  # [] where none is named
    if not isinstance(films, dict) or not isinstance(messages, list):
        return dialogue(name, [], [], "redial", fault="movieMentions should be an object and messages a list")
    films = {number: normalise(str(title)) for number, title in films.items() if title}
    suggested, liked = (record.get(side) or {} for side in ("respondentQuestions", "initiatorQuestions"))
    for side in (suggested, liked):
        if not isinstance(side, dict) or not all(isinstance(one, dict) for one in side.values()):
            return dialogue(name, [], [], "redial", fault="the questions should be an object of objects by film")
    if "initiatorWorkerId" not in record or not all(isinstance(message, dict) for message in messages):
        return dialogue(name, [], [], "redial", fault="no initiatorWorkerId, or messages that are no objects")
    wanted = [
        number
        for number in films
        if (liked.get(number) or {}).get("liked") == 1 and (suggested.get(number) or {}).get("suggested") == 1
    ]
    utterances: list[tuple[str, str]] = []
    for place, message in enumerate(messages, 1):
        text, speaker = message.get("text"), message.get("senderWorkerId")
        if not isinstance(text, str) or speaker not in (record["initiatorWorkerId"], record.get("respondentWorkerId")):
            return dialogue(name, [], [], "redial", fault=f"message {place}: no text, or by neither of both speakers")
        if any(re.search(rf"@{number}\b", text) for number in wanted):
            break
        text = re.sub(r"@(\d+)", lambda found: films.get(found[1], found[0]), text)
        if text.strip():
            utterances.append(("user" if speaker == record["initiatorWorkerId"] else "assistant", normalise(text)))
    titles = list(dict.fromkeys(films[number] for number in wanted))
    return dialogue(name, utterances, titles, "redial", mentioned=list(dict.fromkeys(films.values())))


# ---------------------------------------------------------------- processed


def processed(record: dict) -> dict:
    name = str(record.get("id") or record_id(f"{record.get('dialog')} {record.get('target_items')}"))
    messages, targets = record.get("dialog"), record.get("target_items")
    if missing := [key for key in ("dialog", "target_items") if key not in record]:
        return dialogue(name, [], [], "dialogues", fault=f"no {missing[0]}; its keys are {', '.join(record)}")
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and one.get("role") in ROLES.values() and isinstance(one.get("content"), str)
        for one in messages
    ):
        return dialogue(name, [], [], "dialogues", fault="dialog should be messages by user and assistant with content")
    if not isinstance(targets, list) or not all(isinstance(title, str) and normalise(title) for title in targets):
        return dialogue(name, [], [], "dialogues", fault=f"target_items should be titles, found {targets!r:.40}")
    titles = list(map(normalise, targets))
    utterances = [(one["role"], one["content"]) for one in messages]
    return dialogue(name, utterances, titles, str(record.get("level") or "dialogues"), mentioned=titles)


def items_of(records: Iterable[dict]) -> list[dict]:
    """A catalogue of all titles that frozen prompts name, sorted."""
    return [item(title) for title in sorted({title for record in records for title in record["mentioned"]})]
