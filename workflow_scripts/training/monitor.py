"""Collect what training logs: sums of metrics over bins and ranks, the spread of importance ratios, and speed."""

import math
import time
from collections import defaultdict
from typing import Any

import torch

from workflow_scripts.config.sections import Train
from workflow_scripts.training.flops import forward_flops, peak_flops
from workflow_scripts.training.objectives import Tokens

TIMED = ("tokens_per_second", "mfu")  # metrics that depend on time and so differ from run to run
QUANTILES = (0.05, 0.5, 0.95)
ORIGINS = ("fresh", "replayed")  # rows of this round and of earlier ones
SPREAD = ("own", "ratio", "ratio_squared", "kl_behaviour", "tokens", "logp")  # sums that tell when to stop
SAMPLE = 1000  # ratios per bin that quantiles are computed from


class Monitor:
    """Collects the metrics of one rank between two logs.

    If rows are replayed, ratios and the effective share of the sample are also told by origin.
    """

    def __init__(self, settings: Train, unit: str, replays: bool = False):
        self.settings = settings
        self.unit = unit
        self.origins = ORIGINS if replays and settings.needs_behaviour else ()
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # name → numerator and denominator
        self.spread = [0.0] * len(SPREAD)  # sums of the current update
        self.log_ratios: list[torch.Tensor] = []
        self.tokens = 0
        self.flops = 0.0
        self.since = time.monotonic()

    @torch.no_grad()
    def count(
        self, tokens: Tokens, metrics: dict[str, torch.Tensor], inputs: dict[str, Any], model: Any, update: int
    ) -> None:
        """Add a bin. `metrics` are the objective's, and its loss.

        Raise FloatingPointError if the loss is not finite.
        """
        by_token = {"advantage": tokens.advantage, "logp": tokens.logp, "foreign": tokens.foreign.float()}
        ratios = self._ratios(tokens) if self.settings.needs_behaviour else {}

        by_origin: dict[str, torch.Tensor] = {}
        for origin in self.origins:
            of_origin = inputs["replayed"] == (origin == "replayed")
            by_origin |= ratios_of(tokens.log_ratio()[of_origin & ~tokens.foreign], f"_{origin}")

        every = metrics | by_token | ratios | by_origin
        fetched = torch.stack([value.float().sum() for value in every.values()]).tolist()  # from the device, at once
        sums = dict(zip(every, fetched))
        if not math.isfinite(sums.pop("loss")):
            raise FloatingPointError(
                f"the loss is not finite at update {update}: lower lr, or look at the advantages and log-probs of this "
                f"update ({self.settings.objective})"
            )

        for origin in self.origins:
            count = sums.pop(f"own_{origin}")
            for name in (f"ratio_{origin}", f"ratio_squared_{origin}"):
                self.sums[name][0] += sums.pop(name)
                self.sums[name][1] += count

        own = sums.pop("own", 0)
        for name, value in sums.items():
            self.sums[name][0] += value
            self.sums[name][1] += own if name in ratios else inputs["bin"]["tokens" if name in by_token else self.unit]

        self.sums["reward"][0] += sum(inputs["rewards"])
        self.sums["reward"][1] += len(inputs["rewards"])
        added = {"own": own, "tokens": inputs["bin"]["tokens"]} | sums
        self.spread = [total + added.get(name, 0.0) for total, name in zip(self.spread, SPREAD)]
        self.tokens += inputs["input_ids"].numel()
        self.flops += 3 * forward_flops(model, inputs["lengths"], len(tokens.logp))

    def _ratios(self, tokens: Tokens) -> dict[str, torch.Tensor]:
        own = tokens.log_ratio()[~tokens.foreign]
        self.log_ratios.append(own[:: 1 + len(own) // SAMPLE])
        return ratios_of(own) | {"kl_behaviour": own.exp() - 1 - own}  # Schulman's k3 estimate

    def take_spread(self) -> list[float]:
        """Return the sums of the update, which SPREAD names, and start anew."""
        spread = self.spread
        self.spread = [0.0] * len(SPREAD)
        return spread

    def take(self, over_ranks, world: int) -> dict[str, float]:
        """Return the metrics since the last call. `over_ranks` adds up nested lists of numbers over all ranks."""
        if not self.sums:
            return {}

        names = sorted(self.sums)
        summed = dict(zip(names, over_ranks([self.sums[name] for name in names])))
        logs = {name: value / count for name, (value, count) in summed.items() if count}
        logs["entropy"] = -logs.pop("logp")  # a Monte Carlo estimate on the behaviour's samples
        logs |= self._spread_of_ratios(logs) | self._speed(world)
        self.sums.clear()
        return logs

    def _spread_of_ratios(self, logs: dict[str, float]) -> dict[str, float]:
        """Return quantiles (of this rank's tokens) and the effective share of the sample."""
        ratios = torch.cat(self.log_ratios) if self.log_ratios else torch.zeros(0)
        self.log_ratios.clear()
        if not len(ratios):
            return {}

        quantiles = ratios.exp().quantile(ratios.new_tensor(QUANTILES)).tolist()
        for origin in self.origins:
            squared = logs.pop(f"ratio_squared_{origin}", None)
            if squared is not None:
                logs[f"ess_{origin}"] = logs[f"ratio_{origin}"] ** 2 / squared

        ess = logs["ratio"] ** 2 / logs.pop("ratio_squared")
        return {f"ratio_p{round(100 * q):02}": value for q, value in zip(QUANTILES, quantiles)} | {"ess": ess}

    def _speed(self, world: int) -> dict[str, float]:
        now = time.monotonic()
        seconds = now - self.since
        speed = {"tokens_per_second": self.tokens * world / seconds}
        if peak := peak_flops():
            speed["mfu"] = self.flops / seconds / peak

        self.tokens = 0
        self.flops = 0.0
        self.since = now
        return speed


def ratios_of(log_ratios: torch.Tensor, suffix: str = "") -> dict[str, torch.Tensor]:
    """Return the number of some tokens [N], their ratios and the squares of these, by name."""
    return {
        f"own{suffix}": log_ratios.new_tensor(len(log_ratios)),
        f"ratio{suffix}": log_ratios.exp(),
        f"ratio_squared{suffix}": (2 * log_ratios).exp(),
    }


def state_of_policy(spread: list[float]) -> dict[str, float]:
    """Return effective share of the sample, KL to the behaviour and entropy from the sums of an update (SPREAD)."""
    sums = dict(zip(SPREAD, spread))
    state = {"ess": effective_share(sums["own"], sums["ratio"], sums["ratio_squared"])}
    if sums["own"]:
        state["kl"] = sums["kl_behaviour"] / sums["own"]
    if sums["tokens"]:
        state["entropy"] = -sums["logp"] / sums["tokens"]
    return state


def effective_share(count: float, ratio: float, squared: float) -> float:
    """Return the effective share of a sample, (Σρ)² / (n Σρ²): 1 on policy, 1/n if one token has all the weight."""
    return ratio**2 / (count * squared) if count else 1.0
