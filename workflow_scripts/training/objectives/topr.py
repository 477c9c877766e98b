"""Tapered off-policy REINFORCE: right answers at weight 1, wrong ones at their sequence's ratio, at most 1.

    -Σ_i w_i A_i Σ_t log π(t),  w_i = 1 where A_i > 0, else min(Π_t ρ_t, 1), detached

Le Roux et al. 2025 (arXiv 2503.14286), with its recommended limits. The mean is over tokens here and over answers
there, which differs by a factor. Foreign wrong answers have w = 1.
"""

UNIT = "tokens"
NEEDS = ("behaviour",)


def loss(tokens, settings):
    sequence = tokens.sums(tokens.log_ratio().detach(), "row")[tokens.row].clamp(max=0).exp()
    weight = sequence.masked_fill(tokens.advantage > 0, 1.0)
    total = -(weight * tokens.advantage * tokens.logp).sum()
    return total, {"tapered": (weight < 1).float().sum()}
