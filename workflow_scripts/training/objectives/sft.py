"""Supervised fine-tuning: maximum likelihood.

    -Σ_t log π(t)

Advantages and stored log-probs are not used, and it does not matter which policy wrote a row. With
`data.data_filter: posonly`, only right answers are trained on.
"""

UNIT = "tokens"
MEANS = ("tokens", "rows", "constant")
NEEDS = ()


def loss(tokens, settings):
    return tokens.total(-tokens.logp, settings), {}
