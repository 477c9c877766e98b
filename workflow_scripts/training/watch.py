"""A callback of the trainer: the progress bar, marks on saved states, and the end by ratios or by the clock."""

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import Pace, deadline
from workflow_scripts.training.monitor import state_of_policy
from workflow_scripts.training.states import flush

if TYPE_CHECKING:
    from workflow_scripts.training.trainer import RoundTrainer

COMPLETE = "complete"  # the file that marks a saved state as written to its end


class Watch(TrainerCallback):
    """Watches a trainer."""

    def __init__(self, trainer: "RoundTrainer"):
        self.trainer = trainer
        self.slowest_save = 0.0  # seconds
        self.stepped = time.monotonic()

    def on_train_begin(self, args, state, control, **_):
        self.trainer.restore_precision()
        self.bar = progress(total=state.max_steps, desc="train", unit="update", disable=not state.is_world_process_zero)
        self.bar.update(state.global_step)
        own_deadline = torch.tensor([deadline()], dtype=torch.float64, device=args.device)
        deadlines: Any = self.trainer.accelerator.gather(own_deadline)
        self.pace = Pace(deadlines.min().item())  # all ranks end together

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)
        self._check_policy(state, control)

        if control.should_training_stop or state.global_step == state.max_steps:
            control.should_log = True  # the last updates belong to the history too
            control.should_save = False  # the model is published at once
        elif self._is_time_up():
            self.trainer.out_of_time = True
            control.should_save = True
            control.should_training_stop = True

        self.stepped = time.monotonic()

    def _check_policy(self, state, control) -> None:
        """Stop if the policy moved further than `min_ess` or `max_kl` allows, or if its entropy fell too low."""
        settings = self.trainer.settings
        if not (settings.min_ess or settings.max_kl or settings.min_entropy):
            return

        policy = state_of_policy(self.trainer.over_ranks([self.trainer.monitor.take_spread()])[0])
        reasons = {}
        if policy["ess"] < settings.min_ess:
            reasons["ess"] = f"the effective sample size is {policy['ess']:.1%} (min_ess)"
        if settings.max_kl and policy.get("kl", 0.0) > settings.max_kl:
            reasons["kl"] = f"the KL to the policy that answered is {policy['kl']:.4g} per token (max_kl)"
        if settings.min_entropy and policy.get("entropy", math.inf) < settings.min_entropy:
            reasons["entropy"] = f"the entropy is {policy['entropy']:.4g} nats per token (min_entropy)"

        if reasons:
            say(f"train: stopped after update {state.global_step}: {'; '.join(reasons.values())}")
            self.trainer.stopped = {"update": state.global_step} | {name: policy[name] for name in reasons}
            control.should_training_stop = True

    def _is_time_up(self) -> bool:
        """Return whether, on some rank, another update and a save might not end in time."""
        if self.pace.until == math.inf:
            return False
        return self.trainer.over_ranks([float(self.pace.is_over(2 * self.slowest_save))])[0] > 0

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", grad_norm=f"{logs.get('grad_norm', math.nan):.3f}")

    def on_save(self, args, state, control, **_):
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            flush(folder)  # the mark must not survive a power failure that its state does not survive
            (folder / COMPLETE).write_text(json.dumps(self.trainer.stopped))
            flush(folder)
        self.slowest_save = max(self.slowest_save, time.monotonic() - self.stepped)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def last_state(folder: str | Path) -> Path | None:
    """Return the newest saved state that was written to its end."""
    marks = sorted(Path(folder).glob(f"checkpoint-*/{COMPLETE}"), key=lambda path: int(path.parent.name.split("-")[1]))
    return marks[-1].parent if marks else None
