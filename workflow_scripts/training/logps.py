"""The one place that computes log-probs, for scoring and training alike."""

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from workflow_scripts.training import attention  # noqa: F401  registers "segments"

disable_progress_bar()  # of loading and saving: the stage's own bar is enough


def load_policy(folder: str, dtype: str) -> torch.nn.Module:
    """A causal language model whose forward pass takes bins."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="segments", use_cache=False
    )


def sampled_logps(model: torch.nn.Module, inputs: dict, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs [N], in fp32, of a bin's sampled tokens under logits / temperature.

    Only the N needed rows pass through the head. `inputs` is a bin of `bins.collate`.
    """
    logits = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        lengths=inputs["lengths"],
        logits_to_keep=inputs["keep"],
    ).logits[0]
    logits = logits.float() / temperature
    return logits.gather(-1, inputs["targets"][:, None])[:, 0] - logits.logsumexp(-1)
