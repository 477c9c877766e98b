"""Objectives: pure functions on flat tensors. A new one is a function here with its entries in OBJECTIVES and UNIT, and
its name in core/sections.py (Train), where it is also said which log-probs it needs.

Each takes a bin's sampled tokens and the settings and returns a sum over the units it is averaged over (UNIT:
tokens, rows or pairs; the caller divides by the update's number of them over all ranks) and metrics, sums over the
same units.

Common to all: an answer that was cut off at max_tokens is trained on as it is, graded like any other. A group
without variance never arrives: the data stage drops it (core/advantages.py). Rows without stored log-probs are
refused by the training stage where an objective needs them; a missing value is NaN, and NaN stops training.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from workflow_scripts.core.sections import Train


@dataclass
class Tokens:
    """N sampled tokens of a bin, each field [N]."""

    logp: torch.Tensor  # under the policy in training, with gradient
    behaviour: torch.Tensor  # under the policy that sampled them; meaningless where `foreign`
    reference: torch.Tensor  # under the reference
    advantage: torch.Tensor  # of the row that a token belongs to; of a pair's rows +1 chosen, -1 rejected
    foreign: torch.Tensor  # bool: written by somebody else, so no ratio may be taken
    length: torch.Tensor  # sampled tokens of its row
    row: torch.Tensor  # its row in the bin
    pair: torch.Tensor  # its preference pair in the bin

    def log_ratio(self) -> torch.Tensor:
        """log ρ = log π - log π_behaviour, with the policy's gradient; foreign tokens have the value 0."""
        return self.logp - torch.where(self.foreign, self.logp.detach(), self.behaviour)

    def sums(self, values: torch.Tensor, by: str) -> torch.Tensor:
        """Sums of `values` over the tokens of each `row` or `pair`, [largest index + 1]."""
        index = getattr(self, by)
        return values.new_zeros(int(index.max()) + 1 if len(index) else 0).index_add(0, index, values)


def sft(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict]:
    """Maximum likelihood: -Σ log π(t). Advantages and stored log-probs are not used; neither is who wrote a row."""
    return -tokens.logp.sum(), {}


def ips(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict]:
    """Policy gradient under a detached importance ratio, cut off above, as AutoCode and CodeRL train:

        Σ_i 1/T_i Σ_t [ -min(ρ_t, ratio_cap) A_i log π(t) + w_i (log π_behaviour(t) - log π(t)) ]

    with w = kl for right answers (A > 0) and 0.1 kl for wrong ones. That second term is a forward KL estimate on the
    behaviour's samples: its gradient is that of supervised training. AutoCode (arXiv 2502.00691, train.py) sums it
    over a micro-batch of 2 rows and averages the first, so its kl 0.5 is 1.0 here; in CodeRL's version it had no
    effect, so kl 0 is faithful to that. Foreign tokens have ρ = 1; the second term's gradient asks for no behaviour.
    """
    weight = tokens.log_ratio().detach().exp().clamp(max=settings.ratio_cap)
    total = -weight * tokens.advantage * tokens.logp
    if settings.kl:
        strength = settings.kl * torch.where(tokens.advantage > 0, 1.0, 0.1)
        total = total - strength * tokens.log_ratio()
    return (total / tokens.length).sum(), {"clipped": _share(weight >= settings.ratio_cap, tokens)}


def clip(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict]:
    """PPO's clipped surrogate on stored log-probs, with an optional KL term, averaged over all tokens of the update:

        -Σ_t min(ρ A, clip(ρ, 1-ε_low, 1+ε_high) A) + kl Σ_t ρ (r - 1 - log r),  ρ = π/π_behaviour, r = π_ref/π

    Schulman et al. 2017 (arXiv 1707.06347), equation 7, per token; ε_low ≠ ε_high and the mean over tokens as in
    DAPO (arXiv 2503.14476). The KL estimate is Schulman's k3 under the ratio, gradient through both, so that its
    mean gradient is that of KL(π || π_ref) though another policy sampled. Foreign tokens have ρ = 1 (value, with the
    policy's gradient) and are never clipped.
    """
    ratio = tokens.log_ratio().exp()
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    gain = torch.minimum(ratio * tokens.advantage, clipped * tokens.advantage)
    metrics = {"clipped": (gain < ratio * tokens.advantage).float().sum()}
    if not settings.kl:
        return -gain.sum(), metrics
    log_r = tokens.reference - tokens.logp
    kl = ratio * (log_r.exp() - 1 - log_r)
    return (settings.kl * kl - gain).sum(), metrics | {"kl_reference": kl.detach().sum()}


def topr(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict]:
    """Tapered off-policy REINFORCE: right answers at weight 1, wrong ones at their sequence's ratio, at most 1:

        -Σ_i w_i A_i Σ_t log π(t),  w_i = 1 where A_i > 0, else min(Π_t ρ_t, 1), detached

    Le Roux et al. 2025 (arXiv 2503.14286), with its recommended limits; the mean is over
    tokens here, over answers there, which differs by a factor. Foreign wrong answers have w = 1.
    """
    sequence = tokens.sums(tokens.log_ratio().detach(), "row")[tokens.row].clamp(max=0).exp()
    weight = torch.where(tokens.advantage > 0, 1.0, sequence)
    total = -(weight * tokens.advantage * tokens.logp).sum()
    return total, {"tapered": (weight < 1).float().sum()}


def dpo(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict]:
    """Direct preference optimisation on stored reference log-probs, with a likelihood term on the chosen answers:

        -Σ_pairs log σ(β m) + nll_weight Σ_pairs -1/T_w Σ_t log π(t of chosen),
        m = Σ_t log π/π_ref (chosen) - Σ_t log π/π_ref (rejected)

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7; the second term as in Pang et al. 2024 (arXiv 2404.19733),
    equation 1, without which both likelihoods may fall. Nobody's ratio is taken, so foreign pairs are as good.
    """
    sign = tokens.advantage.sign()
    margin = settings.dpo_beta * tokens.sums(sign * (tokens.logp - tokens.reference), "pair")
    present = torch.zeros_like(margin, dtype=torch.bool).index_fill_(0, tokens.pair, True)
    margin = margin[present]
    nll = torch.where(sign > 0, -tokens.logp / tokens.length, 0).sum()
    total = -logsigmoid(margin).sum() + settings.nll_weight * nll
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum(), "nll": nll.detach()}


def _share(chosen: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """The share of chosen tokens in each row, summed over rows."""
    return (chosen.float() / tokens.length).sum()


OBJECTIVES = {"sft": sft, "ips": ips, "clip": clip, "topr": topr, "dpo": dpo}
UNIT = {"sft": "tokens", "ips": "rows", "clip": "tokens", "topr": "tokens", "dpo": "pairs"}
