"""Tapered off-policy REINFORCE: right answers at weight 1, wrong ones at their sequence's ratio, at most 1.

    -Σ_i w_i A_i Σ_t log π(t),  w_i = 1 where A_i > 0, else min(Π_t ρ_t, 1), detached

Le Roux et al. 2025 (arXiv 2503.14286), with its recommended limits. The mean is over tokens here and over answers
there, which differs by a factor; `mean_over: constant` with `mean_constant: 1` is theirs. Foreign wrong answers have
w = 1.
"""

UNIT = "tokens"
MEANS = ("tokens", "rows", "constant")
NEEDS = ("behaviour",)


def loss(tokens, settings):
    sequence = tokens.sums(tokens.log_ratio().detach(), "row")[tokens.row].clamp(max=0).exp()
    weight = sequence.masked_fill(tokens.advantage > 0, 1.0)
    total = tokens.total(-weight * tokens.advantage * tokens.logp, settings)
    return total, {"tapered": tokens.metric(weight < 1, settings)}
