"""Odds ratio preference optimisation: supervised training on chosen answers, and odds against the rejected ones.

    Σ_pairs [-l_w - β log σ(log odds(l_w) - log odds(l_l))],  log odds(l) = l - log(1 - exp(l)),
    l = 1/T Σ_t log π(t) of the chosen (w) or the rejected (l) answer

Hong et al. 2024 (arXiv 2403.07691), equations 6 and 7, without a reference. β is `dpo_beta`, λ in the paper. A mean
log-prob counts as at most -1e-6 in the odds, which are infinite at 0.
"""

UNIT = "pairs"
NEEDS = ()
LARGEST = -1e-6


def loss(tokens, settings):
    from torch.nn.functional import logsigmoid

    mean = tokens.sums(tokens.logp / tokens.length, "row").clamp(max=LARGEST)
    odds = mean - (-mean.expm1()).log()
    margin = tokens.differences(odds[tokens.row] / tokens.length)
    nll = tokens.chosen_nll()

    total = nll - settings.dpo_beta * logsigmoid(margin).sum()
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum(), "nll": nll.detach()}
