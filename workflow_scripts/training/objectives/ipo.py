"""Identity preference optimisation: the margin between the answers of a pair is drawn to a fixed value.

    Σ_pairs (m - 1/(2β))²,  m = 1/T_w Σ_t log π/π_ref (chosen) - 1/T_l Σ_t log π/π_ref (rejected)

Azar et al. 2023 (arXiv 2310.12036), equation 17, where β is called τ. Log-ratios are means over an answer's tokens, as
in TRL and, by its authors' word there, in the paper's experiments; sums would make the target depend on length.
"""

UNIT = "pairs"
NEEDS = ("reference",)


def loss(tokens, settings):
    margin = tokens.differences((tokens.logp - tokens.reference) / tokens.length)
    total = (margin - 1 / (2 * settings.dpo_beta)).square().sum()
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum()}
