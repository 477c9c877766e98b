"""The transformers engine, for CPUs and small models: left-padded batches with a key-value cache.

Each request draws from a counter-based generator of its own, one uniform number per token, so that an answer depends on
its batch only through floating point. Prompts that several rows share are read once, and finished rows leave the batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DynamicCache
from transformers.utils.logging import disable_progress_bar

from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.engines import UNLIMITED, Completion, Request

PACKAGES = ("torch", "transformers")

disable_progress_bar()  # of loading: the stage's own bar is enough


class Engine:
    """Generates with transformers."""

    def __init__(self, model: str, settings: dict[str, Any], sampling: dict[str, Any], stop: Sequence[str]):
        torch.set_num_threads(settings["threads"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, settings["dtype"]))
        self.model.to(self.device).eval()
        self.sampling = sampling
        self.stop = list(stop)
        self.version = {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "dtype": settings["dtype"],
        }
        self.window = getattr(self.model.config, "max_position_embeddings", None) or UNLIMITED
        self.ends = _end_tokens(self.model)
        self.may_stop = self._tokens_that_may_end_a_stop()

    def _tokens_that_may_end_a_stop(self) -> torch.Tensor:
        """Return [vocabulary] bool: only rows that drew one of these tokens are decoded and searched for a stop."""
        size = self.model.get_output_embeddings().weight.shape[0]
        texts = self.tokenizer.batch_decode([[i] for i in range(min(size, len(self.tokenizer)))])
        last = {stop[-1] for stop in self.stop}
        flags = [any(character in text for character in last) for text in texts]
        return torch.tensor(flags + [False] * (size - len(flags)), device=self.device)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion of each request, in order."""
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].tokens))
        rows = [requests[i] for i in order]
        completions = [Completion([], "length") for _ in rows]
        uniform = _uniforms(rows)
        tokens, mask, context_of_row = self._padded(rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        alive = list(range(len(rows)))

        for step in range(max(row.max_tokens for row in rows)):
            logits = self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                logits_to_keep=1,
            ).logits[:, -1]
            if step == 0 and len(tokens) < len(rows):  # from contexts to rows
                cache.batch_select_indices(context_of_row)
                logits, mask, positions = logits[context_of_row], mask[context_of_row], positions[context_of_row]

            drawn, logps = self._draw(logits.float(), uniform[alive, step])
            keep = self._record(rows, completions, alive, drawn, logps)
            if not keep:
                break
            if len(keep) < len(alive):
                index = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(index)
                drawn, mask, positions = drawn[index], mask[index], positions[index]
                alive = [alive[i] for i in keep]

            tokens = drawn[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1

        by_request = dict(zip(order, completions))
        return [by_request[i] for i in range(len(requests))]

    def _padded(self, rows: Sequence[Request]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return tokens and mask [contexts, width] of the different contexts, padded left, and each row's context."""
        contexts: dict[tuple[int, ...], int] = {}
        context_of_row = [contexts.setdefault(tuple(row.tokens), len(contexts)) for row in rows]
        width = max(map(len, contexts))
        pad = self.ends[0]

        tokens = [[pad] * (width - len(context)) + list(context) for context in contexts]
        mask = [[0] * (width - len(context)) + [1] * len(context) for context in contexts]
        return (
            torch.tensor(tokens, device=self.device),
            torch.tensor(mask, device=self.device),
            torch.tensor(context_of_row, device=self.device),
        )

    def _draw(self, logits: torch.Tensor, uniform: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one token per row of logits [batch, vocabulary], and its log-probability."""
        temperature = self.sampling["temperature"]
        logps = (logits / temperature if temperature else logits).log_softmax(-1)

        if temperature:
            weights = _filtered(logps.exp().double(), self.sampling["top_p"], self.sampling["top_k"])
            cumulative = weights.cumsum(-1)
            target = torch.as_tensor(uniform, device=self.device)[:, None] * cumulative[:, -1:]
            drawn = torch.searchsorted(cumulative, target, right=True)[:, 0]
            drawn = drawn.clamp(max=logits.shape[-1] - 1)
        else:
            drawn = logps.argmax(-1)

        return drawn, logps.gather(-1, drawn[:, None])[:, 0]

    def _record(
        self,
        rows: Sequence[Request],
        completions: list[Completion],
        alive: list[int],
        drawn: torch.Tensor,
        logps: torch.Tensor,
    ) -> list[int]:
        """Append the drawn tokens; return the positions in the batch of the rows that go on."""
        suspects = self.may_stop[drawn].tolist()
        keep = []

        for position, (row, token, logp) in enumerate(zip(alive, drawn.tolist(), logps.tolist())):
            completion = completions[row]
            completion.tokens.append(token)
            completion.logps.append(logp)

            if token in self.ends:
                completion.finish = "eos"
            elif suspects[position] and self._has_stopped(completion.tokens):
                completion.finish = "stop"
            elif len(completion.tokens) < rows[row].max_tokens:
                keep.append(position)

        return keep

    def _has_stopped(self, tokens: list[int]) -> bool:
        tail = self.tokenizer.decode(tokens[-max(map(len, self.stop)) :])
        return any(stop in tail for stop in self.stop)


def _end_tokens(model: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    return list(ends) if isinstance(ends, list | tuple) else [ends]


def _uniforms(rows: Sequence[Request]) -> np.ndarray:
    """Return [rows, longest max_tokens] numbers in [0, 1): a stream of its own for each row."""
    longest = max(row.max_tokens for row in rows)
    return np.stack([np.random.Generator(np.random.Philox(key=row.seed)).random(longest) for row in rows])


def _filtered(weights: torch.Tensor, top_p: float, top_k: int) -> torch.Tensor:
    """Return probabilities [batch, vocabulary] with those outside the nucleus, or the k largest, set to 0."""
    if top_p >= 1 and not top_k:
        return weights

    ordered, index = torch.sort(weights, stable=True, dim=-1, descending=True)
    is_dropped = ordered.cumsum(-1) - ordered >= top_p
    if top_k:
        is_dropped[:, top_k:] = True

    return torch.zeros_like(weights).scatter(-1, index, ordered.masked_fill(is_dropped, 0.0))
