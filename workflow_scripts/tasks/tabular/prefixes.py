"""Log-probs of short answers to prompts that begin alike: what they share is read once.

Prompts come in groups (the anchors' prompts with one synthetic row in all). Four steps, each on the key-value cache of
the one before: what all groups share, what a group shares, the rest of each prompt, each answer.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from transformers import DynamicCache


@dataclass
class Read:
    """Contexts that were read: their cache, mask [contexts, width] (1 = a token) and the tokens that were forwarded."""

    cache: DynamicCache
    mask: torch.Tensor
    forwarded: int = 0


def common(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with, short of any one's last, which is read with its answers."""
    alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences)))
    return min(alike, min(map(len, sequences)) - 1)


def _padded(parts: Sequence[Sequence[int]], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [parts, longest], padded right."""
    width = max(map(len, parts))
    ids = torch.tensor([[*part, *[0] * (width - len(part))] for part in parts], device=device)
    return ids, torch.tensor([[1] * len(part) + [0] * (width - len(part)) for part in parts], device=device)


def extended(model, read: Read | None, parts: Sequence[Sequence[int]], owner: Sequence[int], logits: bool = False):
    """(contexts `read[owner]`, each with its part behind it; the logits [parts, longest, vocabulary] if asked for)."""
    ids, mask = _padded(parts, model.device)
    places = torch.tensor(owner, device=model.device)
    before = read.mask[places] if read else mask[:, :0]
    cache = copy.deepcopy(read.cache) if read else DynamicCache(config=model.config)
    if read:
        cache.batch_select_indices(places)
    if not ids.shape[1]:
        return Read(cache, before, read.forwarded if read else 0), None
    whole = torch.cat([before, mask], dim=1)
    positions = before.sum(1, keepdim=True) + (mask.cumsum(1) - 1).clamp(min=0)
    found = model(
        input_ids=ids, attention_mask=whole, position_ids=positions, past_key_values=cache,
        logits_to_keep=0 if logits else 1,
    )  # fmt: skip
    done = Read(cache, whole, (read.forwarded if read else 0) + int(mask.sum()))
    return done, found.logits if logits else None


@torch.inference_mode()
def read_shared(model, groups: Sequence[Sequence[Sequence[int]]]) -> tuple[Read, list[int]] | None:
    """What all prompts of all groups begin with, read, and its tokens; None if that is nothing."""
    start = groups[0][0][: common([prompt for prompts in groups for prompt in prompts])]
    return (extended(model, None, [start], [0])[0], start) if start else None


@torch.inference_mode()
def answer_logps(
    model, groups: Sequence[Sequence[Sequence[int]]], answers: Sequence[Sequence[int]], shared=None
) -> tuple[list[list[list[float]]], int]:
    """(log-probs by group, prompt and answer; how many tokens were read for them).

    Groups are lists of prompts as token ids, and each of `answers` (token ids) may follow each prompt. `shared` comes
    from read_shared; where a prompt begins otherwise, it is not used.
    """
    read, start = shared or (None, [])
    if any(list(prompt[: len(start)]) != start or len(prompt) <= len(start) for group in groups for prompt in group):
        read, start = None, []
    before = read.forwarded if read else 0
    ends = [max(len(start), common(group)) for group in groups]
    read, _ = extended(model, read, [group[0][len(start) : end] for group, end in zip(groups, ends)], [0] * len(groups))
    owner = [i for i, group in enumerate(groups) for _ in group]
    read, _ = extended(model, read, [prompt[end:-1] for group, end in zip(groups, ends) for prompt in group], owner)
    last = [prompt[-1] for group in groups for prompt in group]
    parts = [[token, *answer[:-1]] for token in last for answer in answers]
    read, logits = extended(model, read, parts, [i for i in range(len(last)) for _ in answers], logits=True)
    logps, values = logits.float().log_softmax(-1), []
    for i, answer in enumerate(list(answers) * len(last)):
        values.append(logps[i, torch.arange(len(answer)), torch.tensor(answer)].sum().item())
    by_prompt = iter([values[i : i + len(answers)] for i in range(0, len(values), len(answers))])
    return [[next(by_prompt) for _ in group] for group in groups], read.forwarded - before
