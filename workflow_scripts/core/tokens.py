"""From text to token ids, once: what a policy samples is never tokenised again."""

from collections.abc import Sequence


def encode_prompt(tokenizer, text: str) -> list[int]:
    """Token ids of a prompt, begun with BOS where this tokenizer begins texts with it and the template has not."""
    ids, begin = tokenizer.encode(text, add_special_tokens=False), tokenizer.bos_token_id
    if begin is None or ids[:1] == [begin] or tokenizer.encode("")[:1] != [begin]:
        return ids
    return [begin, *ids]


def encode_pieces(tokenizer, pieces: Sequence[tuple[str, bool]], end: bool = True) -> tuple[list[int], list[int]]:
    """Token ids and mask (1 = the policy's, 0 = the environment's) of text pieces, each tokenised on its own."""
    tokens, mask = [], []
    for text, sampled in pieces:
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens += ids
        mask += [int(sampled)] * len(ids)
    if end:
        tokens.append(tokenizer.eos_token_id)
        mask.append(1)
    return tokens, mask
