"""Group sequence policy optimisation: one clipped ratio per answer, the geometric mean of its tokens' ratios.

    -Σ_i min(s_i A_i, clip(s_i, 1-ε_low, 1+ε_high) A_i) + kl Σ_i 1/T_i Σ_t k_t,  s_i = exp(1/T_i Σ_t log ρ_t)

Zheng et al. 2025 (arXiv 2507.18071), equations 5 and 7. Such ratios are close to 1, so the paper clips far closer than
others: `clip_low: 3e-4` and `clip_high: 4e-4`. The term k_t estimates KL(π || π_ref) (`kl_to_reference`). Foreign
answers have s = 1 in value, with the policy's gradient, and are never clipped.
"""

from workflow_scripts.training.objectives import bounded, kl_to_reference

UNIT = "rows"
NEEDS = ("behaviour",)
KL = "reference"
MEANS = ("tokens", "rows", "constant")


def loss(tokens, settings):
    mean_log_ratio = tokens.sums(tokens.log_ratio() / tokens.length, "row")
    ratio = bounded(mean_log_ratio).exp()[tokens.row]

    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    gain = (ratio * tokens.advantage).minimum(clipped * tokens.advantage)
    metrics = {"clipped": tokens.metric(gain < ratio * tokens.advantage, settings)}
    if not settings.kl:
        return tokens.total(-gain, settings), metrics

    kl = kl_to_reference(tokens, settings)
    metrics["kl_reference"] = tokens.metric(kl.detach(), settings)
    return tokens.total(settings.kl * kl - gain, settings), metrics
