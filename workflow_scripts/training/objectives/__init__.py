"""Objectives: pure functions on flat tensors, one file each. A new objective is a new file here.

An objective's file holds

    UNIT    what the loss is averaged over: "tokens", "rows" or "pairs"
    NEEDS   the stored log-probs that it uses: "behaviour" (under the policy that sampled the rows), "reference"
    KL      what `train.kl` weighs, if it has such a term: "reference" (a KL term to the reference, which then needs its
            log-probs) or "likelihood"
    MEANS   the values that `train.mean_over` may have, if the loss is one of single tokens
    loss    a function (tokens, settings) → (sum, metrics)

The constants are literals, because the config is checked where torch may be missing; for the same reason the
file imports torch only within functions or for type checkers.

`loss` returns a sum over the units of a bin. The trainer divides it by the number of units in the whole update over all
ranks. Metrics are sums over the same units. An objective with MEANS leaves these sums to `Tokens.total` and
`Tokens.metric`. An answer that was cut off at max_tokens is trained on as it is. Groups
without variance never arrive, because the data stage drops them (core/advantages.py). Training refuses rows without
stored log-probs where an objective needs them; a missing value is NaN, and NaN stops training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workflow_scripts.core.running import plugins

if TYPE_CHECKING:
    import torch

    from workflow_scripts.config.sections import Train

FOLDER = "training/objectives"
LARGEST_LOG_RATIO = 20.0  # exp(20) is 5e8; larger ratios are noise, and exp(89) is infinite in fp32


@dataclass
class Tokens:
    """The N sampled tokens of a bin. Each field has shape [N]."""

    logp: torch.Tensor  # under the policy in training, with gradient
    behaviour: torch.Tensor  # under the policy that sampled them; NaN where it is unknown
    reference: torch.Tensor  # under the reference; NaN where it is unknown
    advantage: torch.Tensor  # of the token's row; for preference pairs +1 chosen, -1 rejected
    foreign: torch.Tensor  # bool: sampled by another policy, so no ratio may be taken
    length: torch.Tensor  # number of sampled tokens in the token's row
    row: torch.Tensor  # index of the token's row in the bin
    pair: torch.Tensor  # index of the token's preference pair in the bin
    start_kl: torch.Tensor  # KL(π_start || π_ref) per answer at the start of the round, of objectives that need both

    def log_ratio(self) -> torch.Tensor:
        """Return log ρ = log π - log π_behaviour with the policy's gradient; foreign tokens have the value 0."""
        return self.logp - self.logp.detach().where(self.foreign, self.behaviour)

    def ratio(self) -> torch.Tensor:
        """Return ρ = π / π_behaviour with the policy's gradient, between exp(-20) and exp(20)."""
        return bounded(self.log_ratio()).exp()

    def sums(self, values: torch.Tensor, by: str) -> torch.Tensor:
        """Return the sums of `values` [N] over the tokens of each `row` or `pair`: [largest index + 1]."""
        index = getattr(self, by)
        size = int(index.max()) + 1 if len(index) else 0
        return values.new_zeros(size).index_add(0, index, values)

    def differences(self, values: torch.Tensor) -> torch.Tensor:
        """Return, for each preference pair, the sum of values [N] over the chosen answer minus the rejected one's."""
        differences = self.sums(self.advantage.sign() * values, "pair")
        is_present = differences.new_zeros(differences.shape).bool().index_fill_(0, self.pair, True)
        return differences[is_present]

    def chosen_nll(self) -> torch.Tensor:
        """Return -1/T Σ_t log π(t) of each chosen answer, summed over the pairs."""
        return (-self.logp / self.length).masked_fill(self.advantage.sign() <= 0, 0).sum()

    def total(self, losses: torch.Tensor, settings: Train) -> torch.Tensor:
        """Return the loss of a bin from those of its tokens [N], for the mean that `train.mean_over` names.

        With `constant`, a row's sum is divided by `train.mean_constant` in place of its length.
        """
        if settings.mean_constant is not None:
            return losses.sum() / settings.mean_constant
        return self.metric(losses, settings)

    def metric(self, values: torch.Tensor, settings: Train) -> torch.Tensor:
        """Return the sum of values [N] over tokens if the loss is a mean over tokens, else of each row's mean."""
        return values.sum() if settings.unit == "tokens" else (values / self.length).sum()


def kl_to_reference(tokens: Tokens, settings: Train) -> torch.Tensor:
    """Return an estimate of KL(π || π_ref) for each token [N], which `train.kl_estimate` names.

        k1: -ρ log r    k2: ½ ρ (log r)², ρ detached    k3: ρ (r - 1 - log r),    r = π_ref/π

    Schulman 2020, "Approximating KL divergence". The ratio ρ = π/π_behaviour corrects for the policy that sampled. The
    mean gradient of each estimate is that of the exact divergence: through ρ as well for k1 and k3, and without it for
    k2, whose value is right to second order only. The logarithm of r is bounded by ±20.
    """
    log_r = bounded(tokens.reference - tokens.logp)

    if settings.kl_estimate == "k1":
        return -tokens.ratio() * log_r
    if settings.kl_estimate == "k2":
        return 0.5 * tokens.ratio().detach() * log_r.square()
    return tokens.ratio() * (log_r.exp() - 1 - log_r)


def bounded(log_ratio: torch.Tensor) -> torch.Tensor:
    """Return log-ratios within ±20. Beyond them, the gradient is zero."""
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


class Objective(Protocol):
    """Interface of an objective's file."""

    UNIT: str
    NEEDS: tuple[str, ...]

    @staticmethod
    def loss(tokens: Tokens, settings: Train) -> tuple[torch.Tensor, dict[str, torch.Tensor]]: ...


def load(name: str) -> Objective:
    """Return the objective of this name."""
    return plugins.load(FOLDER, name)  # type: ignore[return-value]


def root(name: str) -> str:
    """Return the root of an objective's code, for digests."""
    return plugins.module_name(FOLDER, name)
