"""Direct preference optimisation on stored reference log-probs, with a likelihood term on the chosen answers.

    -Σ_pairs [(1-ε) log σ(β m) + ε log σ(-β m)] + nll_weight Σ_pairs -1/T_w Σ_t log π(t of chosen),
    m = Σ_t log π/π_ref (chosen) - Σ_t log π/π_ref (rejected)

Rafailov et al. 2023 (arXiv 2305.18290), equation 7. With `label_smoothing` ε it is conservative DPO (Mitchell 2023, "A
note on DPO with noisy preferences & relationship to IPO"). The last term is that of Pang et al. 2024 (arXiv
2404.19733), equation 1; without it both likelihoods may fall. No ratio against the behaviour is taken, so foreign pairs
are as good as others.
"""

UNIT = "pairs"
NEEDS = ("reference",)


def loss(tokens, settings):
    from torch.nn.functional import logsigmoid

    margin = settings.dpo_beta * tokens.differences(tokens.logp - tokens.reference)
    nll = tokens.chosen_nll()
    losses = -logsigmoid(margin)
    if settings.label_smoothing:
        losses = (1 - settings.label_smoothing) * losses - settings.label_smoothing * logsigmoid(-margin)

    total = losses.sum() + settings.nll_weight * nll
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum(), "nll": nll.detach()}
