"""PPO's clipped surrogate on stored log-probs, with an optional KL term, averaged over all tokens of the update.

    -Σ_t min(ρ A, clip(ρ, 1-ε_low, 1+ε_high) A) + kl Σ_t k_t,  ρ = π/π_behaviour

Schulman et al. 2017 (arXiv 1707.06347), equation 7, per token. ε_low ≠ ε_high and the mean over tokens are those of
DAPO (arXiv 2503.14476). With `dual_clip` c, the gain of a token with A < 0 is at least c A (Ye et al. 2020, arXiv
1912.09729, equation 5), so that no single token with a huge ratio decides an update. The term k_t estimates
KL(π || π_ref), as `kl_estimate` says (`kl_to_reference`). The logarithm of ρ is bounded by ±20. Foreign tokens have
ρ = 1 in value, with the policy's gradient, and are never clipped.
"""

from workflow_scripts.training.objectives import kl_to_reference

UNIT = "tokens"
MEANS = ("tokens", "rows", "constant")
NEEDS = ("behaviour",)
KL = "reference"


def loss(tokens, settings):
    ratio = tokens.ratio()
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    gain = (ratio * tokens.advantage).minimum(clipped * tokens.advantage)
    metrics = {"clipped": tokens.metric(gain < ratio * tokens.advantage, settings)}

    if settings.dual_clip:
        least = (settings.dual_clip * tokens.advantage).where(tokens.advantage < 0, gain)
        metrics["dual_clipped"] = tokens.metric(gain < least, settings)
        gain = gain.maximum(least)

    if not settings.kl:
        return tokens.total(-gain, settings), metrics

    kl = kl_to_reference(tokens, settings)
    metrics["kl_reference"] = tokens.metric(kl.detach(), settings)
    return tokens.total(settings.kl * kl - gain, settings), metrics
