"""Records that were made elsewhere: what they must have to be used here, and their texts as tokens."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Piece
from workflow_scripts.core.tokens import encode_pieces, encode_prompt

Record = dict[str, Any]

NUMBER = (int, float)
NAMES = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}
TOKEN_FIELDS = {"prompt_tokens": list, "tokens": list, "mask": list, "policy": str}


def require(record: Any, fields: Mapping[str, Any], where: str, known: str) -> None:
    """Raise BadInput unless a record has these fields with values of these types.

    Args:
        record: the record.
        fields: the type, or the types, of each field.
        where: the file and the record, for the message.
        known: the forms that are known here, for the message.
    """
    if not isinstance(record, dict):
        raise BadInput(f"{where}: should be a record with keys, found {type(record).__name__}; known forms are {known}")

    missing = [name for name in fields if record.get(name) is None]
    if missing:
        raise BadInput(
            f"{where}: lacks {', '.join(missing)}; it has {', '.join(map(str, record)) or 'no keys'}. "
            f"Known forms are {known}"
        )

    for name, kinds in fields.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        value = record[name]
        is_boolean = isinstance(value, bool) and bool not in kinds  # to Python, True is a number
        if is_boolean or not isinstance(value, kinds):
            expected = " or ".join(dict.fromkeys(NAMES[kind] for kind in kinds))
            raise BadInput(f"{where}: {name} should be {expected}, found {value!r:.60}")


class Encoder:
    """Turns texts into tokens, and checks tokens that came with their texts."""

    def __init__(self, tokenizer: Any):
        if tokenizer.eos_token_id is None:
            raise BadInput("the tokenizer has no EOS token, so a model could not learn where an answer ends")

        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.prompt: Callable[[str], list[int]] = lru_cache(1024)(lambda text: encode_prompt(tokenizer, text))

    def encode(self, prompt_text: str, pieces: list[Piece]) -> Record:
        """Return the fields of an answer that no policy of ours sampled."""
        tokens, mask = encode_pieces(self.tokenizer, pieces)
        return {"prompt_tokens": list(self.prompt(prompt_text)), "tokens": tokens, "mask": mask, "policy": "foreign"}

    def check(self, record: Record, prompt_text: str, where: str) -> None:
        """Raise BadInput unless the tokens of a record are of this tokenizer.

        Sampled tokens are never made from text again, so they can be kept only if the tokenizer is the same. It is, if
        it reads the prompt as the tokens that the record has.
        """
        tokens = record["tokens"]
        mask = record["mask"]

        if len(tokens) != len(mask) or not tokens:
            raise BadInput(f"{where}: {len(tokens)} tokens and a mask of {len(mask)}; both should be equally long")
        if not all(type(token) is int and 0 <= token < self.size for token in tokens) or not set(mask) <= {0, 1}:
            raise BadInput(
                f"{where}: tokens should be ids below {self.size}, the size of the model's vocabulary, with a mask of "
                "0 and 1"
            )
        if self.prompt(prompt_text) != record["prompt_tokens"]:
            raise BadInput(
                f"{where}: prompt_tokens are not those that this model's tokenizer makes of prompt_text, so the record "
                "was made with another tokenizer; give its texts in place of its tokens (see "
                "docs/guides/existing-data.md)"
            )
