"""Simple preference optimisation: mean log-probs are compared, without a reference and with a margin.

    -Σ_pairs log σ(β (1/T_w Σ_t log π (chosen) - 1/T_l Σ_t log π (rejected)) - γ)

Meng et al. 2024 (arXiv 2405.14734), equation 6. β is `dpo_beta`, from 2 to 10 in the paper, and γ is `simpo_margin`.
"""

UNIT = "pairs"
NEEDS = ()


def loss(tokens, settings):
    from torch.nn.functional import logsigmoid

    margin = settings.dpo_beta * tokens.differences(tokens.logp / tokens.length)
    total = -logsigmoid(margin - settings.simpo_margin).sum()
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum()}
