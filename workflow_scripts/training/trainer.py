"""One subclass of transformers.Trainer serves every objective."""

import json
import math
import os
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, get_scheduler

from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import OutOfTime, Pace, deadline
from workflow_scripts.config.sections import Train
from workflow_scripts.training.arguments import training_arguments
from workflow_scripts.training.bins import Bins, plan_rows
from workflow_scripts.training.flops import forward_flops, peak_flops
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training import objectives
from workflow_scripts.training.objectives import Tokens

COMPLETE = "complete"  # marks a saved state that was written to its end
SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}
QUANTILES = (0.05, 0.5, 0.95)
TIMED = ("tokens_per_second", "mfu")  # metrics that depend on time and so differ from run to run


class RoundTrainer(Trainer):
    """Trains on planned bins; the loss is a sum divided by the update's units over all ranks."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the whole update's units

    def __init__(self, *, settings: Train, temperature: float, first: int, total: int, moments: str | None, **kwargs):
        self.settings, self.temperature, self.first, self.total = settings, temperature, first, total
        self.moments, self.stopped, self.out_of_time, self.adapters = moments, None, False, None
        super().__init__(data_collator=lambda items: items[0], **kwargs)
        self.objective, self.unit = objectives.load(settings.objective).loss, settings.unit
        self.sums = defaultdict(lambda: [0.0, 0.0])  # name → numerator and denominator
        self.spread = [0.0, 0.0, 0.0]  # n, Σ ρ, Σ ρ² of the update's own tokens
        self.log_ratios, self.work, self.since = [], [0, 0.0], time.monotonic()

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def _prepare_input(self, data):
        # The parent casts floats to bf16 under DeepSpeed: a log-prob of -512.734 would become -512.
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def create_optimizer(self, *args):
        """With the moments of the round before, if they are carried over."""
        optimizer = super().create_optimizer(*args)
        if self.moments:
            state = torch.load(self.moments, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
            self.moments = None
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The schedule over `total` updates, of which this round's begin at `first`."""
        optimizer = self.optimizer if optimizer is None else optimizer
        warmup = round(self.settings.warmup * self.total)
        shape = get_scheduler(SCHEDULES[self.settings.schedule], optimizer, warmup, self.total).lr_lambdas[0]
        self.lr_scheduler = LambdaLR(optimizer, lambda update: shape(self.first + update))
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logp = sampled_logps(model, inputs, self.temperature)
        names = ("behaviour", "reference", "advantage", "foreign", "length", "row", "pair")
        tokens = Tokens(logp, *(inputs[name] for name in names))
        total, metrics = self.objective(tokens, self.settings)
        self.count(tokens, metrics | {"loss": total.detach()}, inputs)
        return total * self.args.world_size / inputs["update"][self.unit]  # ranks are averaged

    @torch.no_grad()
    def count(self, tokens: Tokens, metrics: dict, inputs: dict) -> None:
        """Sums for the log, fetched from the device all at once."""
        by_token = {"advantage": tokens.advantage, "logp": tokens.logp, "foreign": tokens.foreign.float()}
        ratios = {}
        if self.settings.needs_behaviour:
            own = tokens.log_ratio()[~tokens.foreign]
            ratios = {"own": own.new_tensor(len(own)), "ratio": own.exp(), "ratio_squared": (2 * own).exp()}
            ratios["kl_behaviour"] = own.exp() - 1 - own  # Schulman's k3 estimate
            self.log_ratios.append(own[:: 1 + len(own) // 1000])
        every = metrics | by_token | ratios
        sums = dict(zip(every, torch.stack([value.float().sum() for value in every.values()]).tolist()))
        if not math.isfinite(sums.pop("loss")):
            raise FloatingPointError(
                f"the loss is not finite at update {self.state.global_step + 1}: lower lr, or look at the advantages "
                f"and log-probs of this update ({self.settings.objective})"
            )
        own = sums.pop("own", 0)
        for name, value in sums.items():
            self.sums[name][0] += value
            self.sums[name][1] += own if name in ratios else inputs["bin"]["tokens" if name in by_token else self.unit]
        self.sums["reward"][0] += sum(inputs["rewards"])
        self.sums["reward"][1] += len(inputs["rewards"])
        self.spread = [a + b for a, b in zip(self.spread, (own, sums.get("ratio", 0), sums.get("ratio_squared", 0)))]
        self.work[0] += inputs["input_ids"].numel()
        self.work[1] += 3 * forward_flops(self.model, inputs["lengths"], len(tokens.logp))

    def effective_share(self) -> float:
        """(Σρ)² / (n Σρ²) of the update's own tokens over all ranks: 1 on policy, 1/n if one token has all weight."""
        own, ratio, squared = self.over_ranks([self.spread])[0]
        self.spread = [0.0, 0.0, 0.0]
        return ratio**2 / (own * squared) if own else 1.0

    def over_ranks(self, values: list) -> list:
        return self.accelerator.reduce(torch.tensor(values, device=self.args.device), "sum").tolist()

    def log(self, logs: dict, *args, **kwargs):
        if self.sums:
            names = sorted(self.sums)
            summed = dict(zip(names, self.over_ranks([self.sums[name] for name in names])))
            logs |= {name: value / count for name, (value, count) in summed.items() if count}
            logs |= {"entropy": -logs.pop("logp")}  # a Monte Carlo estimate, of the behaviour's samples
            logs |= self.spread_of_ratios(logs) | self.speed()
            self.sums.clear()
        super().log(logs, *args, **kwargs)

    def spread_of_ratios(self, logs: dict) -> dict:
        """Quantiles (of this rank's tokens) and the effective share of the sample."""
        found = torch.cat(self.log_ratios) if self.log_ratios else torch.zeros(0)
        self.log_ratios.clear()
        if not len(found):
            return {}
        quantiles = found.exp().quantile(found.new_tensor(QUANTILES)).tolist()
        ess = logs["ratio"] ** 2 / logs.pop("ratio_squared")
        return {f"ratio_p{round(100 * q):02}": v for q, v in zip(QUANTILES, quantiles)} | {"ess": ess}

    def speed(self) -> dict:
        (tokens, flops), seconds, self.since = self.work, time.monotonic() - self.since, time.monotonic()
        self.work, peak = [0, 0.0], peak_flops()
        return {"tokens_per_second": tokens * self.args.world_size / seconds} | (
            {"mfu": flops / seconds / peak} if peak else {}
        )

    def full_state(self) -> dict | None:
        """The fp32 weights, gathered from all ranks where DeepSpeed holds them in pieces; None where it does not."""
        if not self.is_deepspeed_enabled:
            return None
        from deepspeed.utils import safe_get_full_fp32_param

        state = {}
        for name, parameter in self.model.named_parameters():  # a collective call for each
            whole = safe_get_full_fp32_param(parameter)
            state[name] = (parameter if whole is None else whole).detach().to("cpu", torch.float32)
        return state | {name: buffer for name, buffer in self.model.state_dict().items() if name not in state}


class Watch(TrainerCallback):
    """A progress bar, a mark on each saved state that is whole, and the end where the ratios or the clock say so."""

    def __init__(self, trainer: RoundTrainer):
        self.trainer = trainer
        self.saving = 0.0  # seconds that the slowest save took

    def on_train_begin(self, args, state, control, **_):
        self.bar = progress(total=state.max_steps, desc="train", unit="update", disable=not state.is_world_process_zero)
        self.bar.update(state.global_step)
        known = torch.tensor([deadline()], dtype=torch.float64, device=args.device)
        self.pace = Pace(self.trainer.accelerator.gather(known).min().item())  # one for all ranks, which end together

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)
        least, share = self.trainer.settings.min_ess, 1.0
        if least:
            share = self.trainer.effective_share()
        if share < least:
            say(f"train: stopped after update {state.global_step}: the effective sample size is {share:.1%} (min_ess)")
            self.trainer.stopped = {"update": state.global_step, "ess": share}
            control.should_training_stop = True
        if control.should_training_stop or state.global_step == state.max_steps:
            control.should_log = True  # the last updates belong to the history too
        elif self.is_time_up():
            self.trainer.out_of_time = control.should_save = control.should_training_stop = True
        self.stepped = time.monotonic()

    def is_time_up(self) -> bool:
        """Whether another update and a save may not end in time, for some rank."""
        if self.pace.until == math.inf:
            return False
        return self.trainer.over_ranks([float(self.pace.is_over(2 * self.saving))])[0] > 0

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", grad_norm=f"{logs.get('grad_norm', math.nan):.3f}")

    def on_save(self, args, state, control, **_):
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            os.sync()  # the mark must not survive a power cut that its state does not
            mark = Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE
            mark.write_text(json.dumps(self.trainer.stopped))
        self.saving = max(self.saving, time.monotonic() - self.stepped)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def last_state(folder: str | Path) -> Path | None:
    """The newest saved state that was written to its end."""
    marks = sorted(Path(folder).glob(f"checkpoint-*/{COMPLETE}"), key=lambda p: int(p.parent.name.split("-")[1]))
    return marks[-1].parent if marks else None


def prepared(
    model: str, rows: list[dict], settings: Train, *, temperature: float, seed: int, state: str, pad: int,
    round: int = 1, rounds: int = 1, moments: str | None = None, report: bool = False,
) -> RoundTrainer:  # fmt: skip
    """A trainer of the model in the folder `model` on `rows`, which saves its state in the folder `state`.

    `round` of `rounds` is where in the schedule this round stands; both are 1 for a schedule per round.
    """
    units, planned, accumulation, updates = plan_rows(rows, settings, seed)
    # The arguments come first: they tell transformers how ZeRO-3 loads a model. Weights are fp32 masters: in bf16, an
    # update of 1e-6 is lost.
    arguments = training_arguments(settings, state, accumulation, updates, seed, report)
    if settings.lora:
        from workflow_scripts.training.adapters import load_adapted  # here: peft takes seconds to load

        policy, adapters = load_adapted(model, settings, seed, arguments.device)
        policy._hf_peft_config_loaded = True  # else the parent refuses weights in 4 bits
    else:
        policy, adapters = load_policy(model, "float32"), None
    trainer = RoundTrainer(
        settings=settings,
        temperature=temperature,
        first=(round - 1) * updates,
        total=rounds * updates,
        moments=moments,
        args=arguments,
        model=policy,
        train_dataset=Bins(rows, units, planned, pad),
    )
    trainer.adapters = adapters
    policy._hf_peft_config_loaded = False  # else saved states would be of the parent's own adapters
    trainer.remove_callback(PrinterCallback)  # the bar shows what it would print
    trainer.add_callback(Watch(trainer))
    return trainer


def fit(model: str, rows: list[dict], settings: Train, *, state: str, **options) -> RoundTrainer:
    """Train, resuming from `state` if a run was cut off there (options as `prepared` has them).

    Raises OutOfTime, after a save, where the job's time is nearly up.
    """
    trainer, resume = prepared(model, rows, settings, state=state, **options), last_state(state)
    if resume:
        if stopped := json.loads((resume / COMPLETE).read_text()):  # it had come to its end: nothing is left to do
            trainer.stopped, trainer.args.max_steps = stopped, stopped["update"]
            per_update = trainer.args.gradient_accumulation_steps * trainer.args.world_size
            del trainer.train_dataset.planned[stopped["update"] * per_update :]
        say(f"train: going on from update {resume.name.split('-')[1]} of {trainer.args.max_steps} ({resume})")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.out_of_time:
        done = f"{trainer.state.global_step} of {trainer.args.max_steps}"
        raise OutOfTime(f"train: time is nearly up, update {done} is saved")
    return trainer


def history(trainer: RoundTrainer) -> list[dict]:
    """The logged figures, which saved states keep too, without those that differ from run to run."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{name: value for name, value in entry.items() if name not in TIMED} for entry in logged]
