"""The instructions of the task `reference`: from a pool in BLEUBERI's format, or made up."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from workflow_scripts.core.chat import check_messages
from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.records import Prompt
from workflow_scripts.core.sources import records_of
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.reference.instructions import made_up_prompts
from workflow_scripts.tasks.reference.settings import Settings

GOLD = "ref_output_gold"
COLUMN = "ref_output_"  # the references by a model are in the column with this prefix and the model's name


class Prompts(defaults.Prompts):
    """Instructions; the reference is a list of texts."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        section = Settings.model_validate(self.settings)
        if source["file"]:
            yield from pool_prompts(source, section.ref_models)
            return

        for prompt in made_up_prompts(source["count"], split, seed):
            if split != "eval":  # eval instructions keep all references, so that metrics stay comparable
                prompt["reference"] = prompt["reference"][: section.references]
            yield prompt

    def fault(self, prompt: Prompt) -> str | None:
        references = prompt.get("reference")
        is_usable = isinstance(references, list) and references and all(map(is_text, references))
        return None if is_usable else "no references: `reference` should be a list of texts"


def pool_prompts(source: dict[str, Any], ref_models: Sequence[str]) -> Iterator[Prompt]:
    """Yield the instructions of a pool, with the outputs of the chosen models as references.

    Data in the format of Tulu 3 has no such columns: the reference is the assistant's first message. A record without
    a usable instruction, or without one of the outputs, has a `fault`. Raise BadInput if the first record lacks the
    column of a model: then the config names the wrong models.
    """
    columns = [f"{COLUMN}{model}" for model in ref_models]
    is_conversation = False

    for number, record in enumerate(islice(records_of(source), source["limit"])):
        if number == 0:
            has_columns = any(name.startswith(COLUMN) for name in record)
            is_conversation = not has_columns and "messages" in record and columns == [GOLD]
        if is_conversation:
            record = record | {GOLD: first_answer(record["messages"])}
        if number == 0:
            check_columns(source["file"], record, columns)

        question, fault = instruction_of(record)
        references = [record.get(column) for column in columns]
        missing = [column for column, text in zip(columns, references) if not is_text(text)]
        if missing and not fault:
            fault = f"no {missing[0]}"

        yield {
            "id": str(record.get("id") or record_id(str(question))),
            "question": question,  # type: ignore[typeddict-item]  (None only with a fault)
            "reference": references,
            "level": str(record.get("source") or "pool"),
            "fault": fault,
        }


def check_columns(file: str, record: dict[str, Any], columns: Sequence[str]) -> None:
    """Raise BadInput if a record has no column for a chosen model."""
    missing = [column for column in columns if column not in record]
    if not missing:
        return

    models = [name.removeprefix(COLUMN) for name in record if name.startswith(COLUMN)]
    hint = f"reference.ref_models may be {', '.join(models)}" if models else f"its columns are {', '.join(record)}"
    raise BadInput(f"{file}: there is no column {missing[0]!r} with the references by that model; {hint}")


def instruction_of(record: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return (instruction, fault) of a pool's record: the user's first message, or `prompt`.

    As in the original, later turns of a conversation are left out.
    """
    texts = [record.get("prompt")]

    if record.get("messages"):
        try:
            messages = check_messages(record["messages"], "messages")
        except Reject as reject:
            return None, str(reject)
        texts = [message["content"] for message in messages if message["role"] == "user"]

    if not texts or not isinstance(texts[0], str):
        return None, "there is no message by the user and no `prompt` as text"

    return texts[0], None


def first_answer(messages: Any) -> str | None:
    """Return the assistant's first message of a conversation, if it has one."""
    if not isinstance(messages, list):
        return None
    return next((message.get("content") for message in messages if message.get("role") == "assistant"), None)


def is_text(value: Any) -> bool:
    """Return whether a value is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())
