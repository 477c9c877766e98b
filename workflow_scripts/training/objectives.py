"""Objectives: pure functions on flat tensors.

Each takes a bin's sampled tokens and the settings and returns a sum over tokens (the caller divides it by the
update's number of sampled tokens over all ranks) and metrics, also as sums over tokens.
"""

from dataclasses import dataclass

import torch


@dataclass
class Tokens:
    """N sampled tokens of a bin, each field [N]."""

    logp: torch.Tensor  # under the policy in training, with gradient
    behaviour: torch.Tensor  # under the policy that sampled them; meaningless where `foreign`
    advantage: torch.Tensor  # of the row that a token belongs to
    foreign: torch.Tensor  # bool: written by somebody else, so no ratio may be taken


def sft(tokens: Tokens, settings: dict) -> tuple[torch.Tensor, dict]:
    """Maximum likelihood: -Σ log π(t). Behaviour and advantage are not used; cut-off answers count as they are."""
    return -tokens.logp.sum(), {"logp": tokens.logp.detach().sum()}


def clip(tokens: Tokens, settings: dict) -> tuple[torch.Tensor, dict]:
    """PPO's clipped surrogate on stored log-probs: -Σ min(ρA, clip(ρ, 1-ε_low, 1+ε_high) A), ρ = π/π_behaviour.

    Schulman et al. 2017 (arXiv 1707.06347), equation 7, per token; with ε_low ≠ ε_high as in DAPO
    (arXiv 2503.14476). Foreign tokens have ρ = 1 (value, with the policy's gradient) and are never clipped.
    """
    behaviour = torch.where(tokens.foreign, tokens.logp.detach(), tokens.behaviour)
    log_ratio = tokens.logp - behaviour
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - settings["clip_low"], 1 + settings["clip_high"])
    gain = torch.minimum(ratio * tokens.advantage, clipped * tokens.advantage)
    with torch.no_grad():
        metrics = {
            "logp": tokens.logp.sum(),
            "ratio": ratio.sum(),
            "clipped": (gain < ratio * tokens.advantage).float().sum(),
            "kl_behaviour": (ratio - 1 - log_ratio).sum(),  # Schulman's k3 estimate
            "foreign": tokens.foreign.float().sum(),
        }
    return -gain.sum(), metrics


OBJECTIVES = {"sft": sft, "clip": clip}
