"""Direct preference optimisation on stored reference log-probs, with a likelihood term on the chosen answers.

    -Σ_pairs log σ(β m) + nll_weight Σ_pairs -1/T_w Σ_t log π(t of chosen),
    m = Σ_t log π/π_ref (chosen) - Σ_t log π/π_ref (rejected)

Rafailov et al. 2023 (arXiv 2305.18290), equation 7. The second term is that of Pang et al. 2024 (arXiv 2404.19733),
equation 1; without it both likelihoods may fall. No ratio against the behaviour is taken, so foreign pairs are as good
as others.
"""

UNIT = "pairs"
NEEDS = ("reference",)


def loss(tokens, settings):
    from torch.nn.functional import logsigmoid

    sign = tokens.advantage.sign()
    margin = settings.dpo_beta * tokens.sums(sign * (tokens.logp - tokens.reference), "pair")
    is_present = margin.new_zeros(margin.shape).bool().index_fill_(0, tokens.pair, True)
    margin = margin[is_present]
    nll = (-tokens.logp / tokens.length).masked_fill(sign <= 0, 0).sum()

    total = -logsigmoid(margin).sum() + settings.nll_weight * nll
    return total, {"preferred": (margin > 0).float().sum(), "margin": margin.detach().sum(), "nll": nll.detach()}
