"""Log-probs of short answers to prompts that begin alike: what prompts share is read once.

Prompts come in groups, such as the prompts of all anchors with one synthetic row. They are read in four steps, each on
the key-value cache of the one before: what all groups share, what a group shares, the rest of each prompt, each answer.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

Tokens = Sequence[int]
Group = Sequence[Tokens]  # prompts that begin alike


@dataclass
class Contexts:
    """Contexts that a model has read."""

    cache: DynamicCache
    mask: torch.Tensor  # [contexts, width], 1 = a token
    forwarded: int = 0  # tokens that were passed through the model


@dataclass
class Beginning:
    """The common beginning of all prompts, which a model has read."""

    contexts: Contexts
    tokens: list[int]


def common_length(sequences: Sequence[Tokens]) -> int:
    """Return how many tokens all sequences begin with, without the last token of any: answers are read with it."""
    equal_columns = takewhile(lambda column: len(set(column)) == 1, zip(*sequences))
    alike = sum(1 for _ in equal_columns)
    return min(alike, min(map(len, sequences)) - 1)


def _padded(parts: Sequence[Tokens], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask of parts, both [parts, longest], padded on the right."""
    width = max(map(len, parts))
    ids = [[*part, *[0] * (width - len(part))] for part in parts]
    mask = [[1] * len(part) + [0] * (width - len(part)) for part in parts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def extend(
    model: Any, contexts: Contexts | None, parts: Sequence[Tokens], owners: Sequence[int], logits: bool = False
) -> tuple[Contexts, torch.Tensor | None]:
    """Read parts, each behind a context.

    Args:
        model: a causal language model.
        contexts: what was read before; None for nothing.
        parts: the tokens to read.
        owners: the context of each part, by position.
        logits: whether the logits of all tokens are needed.

    Returns:
        The contexts with their parts, and the logits, [parts, longest, vocabulary], if they are needed.
    """
    ids, mask = _padded(parts, model.device)
    positions = torch.tensor(owners, device=model.device)

    if contexts is None:
        before = mask[:, :0]
        cache = DynamicCache(config=model.config)
        forwarded = 0
    else:
        before = contexts.mask[positions]
        cache = copy.deepcopy(contexts.cache)
        cache.batch_select_indices(positions)
        forwarded = contexts.forwarded

    if not ids.shape[1]:
        return Contexts(cache, before, forwarded), None

    whole = torch.cat([before, mask], dim=1)
    output = model(
        input_ids=ids,
        attention_mask=whole,
        position_ids=before.sum(1, keepdim=True) + (mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=0 if logits else 1,
    )
    return Contexts(cache, whole, forwarded + int(mask.sum())), output.logits if logits else None


@torch.inference_mode()
def read_beginning(model: Any, groups: Sequence[Group]) -> Beginning | None:
    """Read what all prompts of all groups begin with; None if that is nothing."""
    prompts = [prompt for group in groups for prompt in group]
    tokens = list(prompts[0][: common_length(prompts)])
    if not tokens:
        return None

    contexts, _ = extend(model, None, [tokens], [0])
    return Beginning(contexts, tokens)


@torch.inference_mode()
def answer_logps(
    model: Any, groups: Sequence[Group], answers: Sequence[Tokens], beginning: Beginning | None = None
) -> tuple[list[list[list[float]]], int]:
    """Return the log-prob of each answer to each prompt, and how many tokens were read for them.

    Args:
        model: a causal language model.
        groups: lists of prompts, as token ids.
        answers: token ids; each answer may follow each prompt.
        beginning: from `read_beginning`. It is not used if a prompt begins otherwise.

    Returns:
        Log-probs by group, prompt and answer, and the number of tokens.
    """
    if beginning and not all(_begins_with(prompt, beginning.tokens) for group in groups for prompt in group):
        beginning = None
    contexts = beginning.contexts if beginning else None
    start = len(beginning.tokens) if beginning else 0
    before = contexts.forwarded if contexts else 0

    ends = [max(start, common_length(group)) for group in groups]
    shared = [group[0][start:end] for group, end in zip(groups, ends)]
    contexts, _ = extend(model, contexts, shared, [0] * len(groups))

    owners = [number for number, group in enumerate(groups) for _ in group]
    rests = [prompt[end:-1] for group, end in zip(groups, ends) for prompt in group]
    contexts, _ = extend(model, contexts, rests, owners)

    last = [prompt[-1] for group in groups for prompt in group]
    parts = [[token, *answer[:-1]] for token in last for answer in answers]
    owners = [number for number in range(len(last)) for _ in answers]
    contexts, logits = extend(model, contexts, parts, owners, logits=True)
    assert logits is not None

    logps = logits.float().log_softmax(-1)
    values = []
    for number, answer in enumerate(list(answers) * len(last)):
        values.append(logps[number, torch.arange(len(answer)), torch.tensor(answer)].sum().item())

    by_prompt = iter([values[i : i + len(answers)] for i in range(0, len(values), len(answers))])
    return [[next(by_prompt) for _ in group] for group in groups], contexts.forwarded - before


def _begins_with(prompt: Tokens, beginning: list[int]) -> bool:
    """Return whether a prompt begins with these tokens and goes on after them."""
    return len(prompt) > len(beginning) and list(prompt[: len(beginning)]) == beginning
