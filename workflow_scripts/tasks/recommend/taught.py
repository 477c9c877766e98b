"""A teacher's dialogues that exist as files, in TART's formats: explored, reranked, or ready to be learnt.

    explored   `given_dialog`, `generated_dialog`, `rec_success` and `rec_names`, as explore_gpt.py and explore.py write
    reranked   `dialog`, `interaction` and `target_items`, as make_sft_data.py writes; and `base_turn`, if it is there
    sft        the same. The dialogue may have the teacher's first interactions already (…_last2interaction.json)

Both spellings of a field are read in each format. An interaction alternates between the recommender, who begins, and
the seeker. What the seeker says after the recommender's last utterance is left out, because nobody answers it.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NotRequired

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest, normalise
from workflow_scripts.core.records import Message
from workflow_scripts.core.sources import read_source
from workflow_scripts.tasks.recommend.dialogues import is_dialog
from workflow_scripts.tasks.recommend.readers import Dialogue, faulty, make_dialogue

# Each field with its spellings.
FIELDS = {
    "dialog": ("dialog", "given_dialog"),
    "interaction": ("interaction", "generated_dialog"),
    "target_items": ("target_items", "rec_names"),
}

Record = dict[str, Any]


class TaughtDialogue(Dialogue):
    """A dialogue that a teacher continued."""

    interaction: NotRequired[list[Message]]  # the continuation, which ends with the recommender
    rec_success: NotRequired[bool]  # whether it is to be learnt: the teacher hit a target
    base_turn: NotRequired[int | None]  # interactions that the teacher needed; None if the file does not tell


def read_taught(
    form: str, file: str, split: str = "train", revision: str | None = None, subset: str | None = None
) -> Iterator[TaughtDialogue]:
    """Stream the dialogues of a file, or of a data set, in the format explored, reranked or sft.

    Raise BadInput if its first record lacks a field. A later record without it has a fault.
    """
    records = iter(read_source(file, split, revision, subset))
    first = next(records, None)
    if first is None:
        raise BadInput(f"{file}: the file has no records")
    if missing := _missing_field(first, form):
        raise BadInput(f"{file}, record 1: has no {missing}, only {', '.join(map(repr, first))}")

    for record in chain([first], records):
        yield taught(record, form)


def _missing_field(record: Record, form: str) -> str | None:
    for spellings in FIELDS.values():
        if not any(name in record for name in spellings):
            return " or ".join(map(repr, spellings))

    if form == "explored" and "rec_success" not in record:
        return "'rec_success'; if all its dialogues are to be learnt, give it as recommend.explore.reranked or sft"

    return None


def taught(record: Record, form: str) -> TaughtDialogue:
    """Return a dialogue with its continuation from a record of one of the three formats."""
    values = {name: _value(record, spellings) for name, spellings in FIELDS.items()}
    identity = digest([values["dialog"], values["interaction"], values["target_items"]])
    level = str(record.get("level") or "dialogues")
    if fault := _fault(record, values, form):
        return faulty(identity, level, fault)  # type: ignore[return-value]

    targets = [normalise(title) for title in values["target_items"]]
    best = [normalise(title) for title in record.get("topk_names") or [] if isinstance(title, str)]
    utterances = [(message["role"], message["content"]) for message in values["dialog"]]
    dialogue = make_dialogue(identity, utterances, targets, level, mentioned=list(dict.fromkeys(targets + best)))

    interaction = [{"role": message["role"], "content": message["content"]} for message in values["interaction"]]
    if interaction[-1]["role"] == "user":
        interaction.pop()

    return dialogue | {
        "interaction": interaction,
        "rec_success": record.get("rec_success", True),
        "base_turn": record.get("base_turn"),
    }  # type: ignore[return-value]


def _value(record: Record, spellings: tuple[str, ...]) -> Any:
    return next((record[name] for name in spellings if name in record), None)


def _fault(record: Record, values: Record, form: str) -> str | None:
    if missing := _missing_field(record, form):
        return f"no {missing}"

    for name in ("dialog", "interaction"):
        if not is_dialog(values[name]):
            return f"{name} should be messages by user and assistant with content, found {values[name]!r:.60}"

    for number, message in enumerate(values["interaction"]):
        role = ("assistant", "user")[number % 2]
        if message["role"] != role:
            return f"interaction, message {number + 1}: should be by {role!r}, found {message['role']!r}"
        if not message["content"].strip() and role == "assistant":
            return f"interaction, message {number + 1}: the recommender says nothing"

    targets = values["target_items"]
    if not isinstance(targets, list) or not all(isinstance(title, str) and normalise(title) for title in targets):
        return f"target_items should be titles, found {targets!r:.60}"

    return _fault_of_outcome(record)


def _fault_of_outcome(record: Record) -> str | None:
    if not isinstance(record.get("rec_success", True), bool):
        return f"rec_success should be true or false, found {record['rec_success']!r:.40}"

    turn = record.get("base_turn")
    if turn is not None and (not isinstance(turn, int) or isinstance(turn, bool) or turn < 0):
        return f"base_turn should be a number of interactions, found {turn!r:.40}"

    return None
