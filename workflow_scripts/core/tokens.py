"""Convert text into token ids once: what a policy samples is never tokenised again."""

from collections.abc import Sequence

from workflow_scripts.core.records import Piece


def encode_prompt(tokenizer, text: str) -> list[int]:
    """Return the token ids of a prompt.

    BOS comes first if this tokenizer begins texts with it and the template has not written it already.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id

    if bos is None or ids[:1] == [bos] or tokenizer.encode("")[:1] != [bos]:
        return ids

    return [bos, *ids]


def encode_pieces(tokenizer, pieces: Sequence[Piece], end: bool = True) -> tuple[list[int], list[int]]:
    """Return token ids and mask of an answer in pieces, each of which is tokenised on its own.

    The mask is 1 for the policy's tokens and 0 for the environment's. `end` adds the EOS token, with mask 1.
    """
    tokens = []
    mask = []

    for text, is_sampled in pieces:
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens += ids
        mask += [int(is_sampled)] * len(ids)

    if end:
        tokens.append(tokenizer.eos_token_id)
        mask.append(1)

    return tokens, mask
