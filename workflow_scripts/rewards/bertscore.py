"""BERTScore's F1 (Zhang et al. 2020, equations 1 to 3, without idf or rescaling) against the best reference."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from workflow_scripts.rewards import Reward

NEEDS_MODEL = True


def make(path: str) -> Reward:
    """Return a reward by an encoder.

    Tokens are compared by their states five sixths up the encoder. For DistilBERT, the original's encoder, that is
    layer 5.
    """
    import torch

    from workflow_scripts.rewards._models import load_model

    model, tokenizer = load_model("AutoModel", path)
    layer = round(model.config.num_hidden_layers * 5 / 6)

    @lru_cache(10_000)
    @torch.inference_mode()
    def states(text: str) -> torch.Tensor:
        """Return unit vectors [tokens, width] of a text's tokens, without those that the tokenizer adds."""
        inputs = tokenizer(text, return_tensors="pt", truncation=True, return_special_tokens_mask=True).to(model.device)
        is_own = inputs.pop("special_tokens_mask")[0] == 0
        if not is_own.any():
            return torch.zeros(0, model.config.hidden_size)

        hidden = model(**inputs, output_hidden_states=True).hidden_states[layer][0, is_own]
        return torch.nn.functional.normalize(hidden.float(), dim=-1).cpu()

    def score(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        return max(f1(states(answer) @ states(reference).T) for reference in references)

    return score


def f1(similarity) -> float:
    """Return the F1 of greedy matching, from cosines [answer's tokens, reference's tokens]."""
    if not similarity.numel():
        return 0.0

    precision = similarity.amax(1).mean()
    recall = similarity.amax(0).mean()
    return (2 * precision * recall / (precision + recall)).item()
