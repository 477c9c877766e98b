"""Policy gradient whose weights are clipped ratios, so that every token keeps a gradient.

    -Σ_t min(ρ_t, ratio_cap) A log π(t) + kl Σ_t k_t,  ρ = π/π_behaviour, detached

CISPO of MiniMax 2025 (arXiv 2506.13585), equation 4. As in the paper's experiments, ratios have no lower bound. Where
`clip` gives no gradient to tokens whose ratio is too large, this weighs them by the cap; TRL's cap is 5. The term k_t
estimates KL(π || π_ref) (`kl_to_reference`). Foreign tokens have ρ = 1.
"""

from workflow_scripts.training.objectives import kl_to_reference

UNIT = "tokens"
NEEDS = ("behaviour",)
KL = "reference"
MEANS = ("tokens", "rows", "constant")


def loss(tokens, settings):
    weight = tokens.ratio().detach().clamp(max=settings.ratio_cap)
    losses = -weight * tokens.advantage * tokens.logp
    metrics = {"clipped": tokens.metric(weight >= settings.ratio_cap, settings)}
    if not settings.kl:
        return tokens.total(losses, settings), metrics

    kl = kl_to_reference(tokens, settings)
    metrics["kl_reference"] = tokens.metric(kl.detach(), settings)
    return tokens.total(losses + settings.kl * kl, settings), metrics
