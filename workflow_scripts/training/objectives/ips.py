"""Importance-weighted policy gradient, as AutoCode and CodeRL train.

    Σ_i 1/T_i Σ_t [ -min(ρ_t, ratio_cap) A_i log π(t) + w_i (log π_behaviour(t) - log π(t)) ]

The ratio ρ is detached. w = kl for right answers (A > 0) and 0.1 kl for wrong ones. The second term is an estimate of
the forward KL on the behaviour's samples: its gradient is that of supervised training. AutoCode (arXiv 2502.00691,
train.py) sums it over a micro-batch of 2 rows and averages the first term, so its kl 0.5 is 1.0 here. In CodeRL's
version it had no effect, so kl 0 is faithful to CodeRL. Foreign tokens have ρ = 1; the gradient of the second term does
not depend on the behaviour.
"""

UNIT = "rows"
MEANS = ("tokens", "rows", "constant")
NEEDS = ("behaviour",)
KL = "likelihood"


def loss(tokens, settings):
    weight = tokens.log_ratio().detach().exp().clamp(max=settings.ratio_cap)
    total = -weight * tokens.advantage * tokens.logp

    if settings.kl:
        is_right = tokens.advantage > 0
        strength = settings.kl * is_right.float().masked_fill(~is_right, 0.1)
        total = total - strength * tokens.log_ratio()

    return tokens.total(total, settings), {"clipped": tokens.metric(weight >= settings.ratio_cap, settings)}
