"""Kahneman-Tversky optimisation: single answers that are good or bad, valued against a reference point.

    Σ_i λ_i (1 - σ(β s_i (h_i - z))),  h_i = Σ_t log π/π_ref,  s_i = 1 and λ_i = desirable_weight where A_i > 0,
    else s_i = -1 and λ_i = undesirable_weight

Ethayarajh et al. 2024 (arXiv 2402.01306). The reference point z is KL(π || π_ref). The paper estimates it anew in each
batch, on questions with the answers to others. Here it is the KL at the start of the round: the mean of Σ_t log
π_start/π_ref over the answers that π_start sampled, at least 0. It follows from stored log-probs and is 0 if there are
no such answers, or if the reference is the start itself.
"""

UNIT = "rows"
NEEDS = ("behaviour", "reference")


def loss(tokens, settings):
    is_good = tokens.advantage > 0
    sign = is_good.to(tokens.logp.dtype).masked_fill(~is_good, -1.0)
    weight = settings.desirable_weight * is_good + settings.undesirable_weight * ~is_good

    log_ratio = tokens.sums(tokens.logp - tokens.reference, "row")[tokens.row]
    value = (settings.dpo_beta * sign * (log_ratio - tokens.start_kl)).sigmoid()
    total = (weight * (1 - value) / tokens.length).sum()

    metrics = {"value": (value.detach() / tokens.length).sum(), "start_kl": (tokens.start_kl / tokens.length).sum()}
    return total, metrics
