"""DPO whose mean loss is that of true preferences, if a known share of them is flipped.

    Σ_pairs [-(1-ε) log σ(β m) + ε log σ(-β m)] / (1-2ε) + nll_weight Σ_pairs -1/T_w Σ_t log π(t of chosen)

Ray Chowdhury et al. 2024 (arXiv 2403.00409). The margin m and the last term are those of `dpo`, and ε is
`label_smoothing`, the share of flipped pairs. At ε = 0 it is `dpo`.
"""

UNIT = "pairs"
NEEDS = ("reference",)


def loss(tokens, settings):
    from torch.nn.functional import logsigmoid

    flipped = settings.label_smoothing
    margin = settings.dpo_beta * tokens.differences(tokens.logp - tokens.reference)
    losses = (flipped * logsigmoid(-margin) - (1 - flipped) * logsigmoid(margin)) / (1 - 2 * flipped)
    nll = tokens.chosen_nll()

    total = losses.sum() + settings.nll_weight * nll
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum(), "nll": nll.detach()}
