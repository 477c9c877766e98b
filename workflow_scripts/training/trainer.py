"""One subclass of transformers.Trainer serves every objective."""

import json
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, get_scheduler

from workflow_scripts.config.sections import Train
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.deadline import OutOfTime
from workflow_scripts.training import objectives
from workflow_scripts.training.arguments import training_arguments
from workflow_scripts.training.bins import Bins, plan_rows
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.monitor import TIMED, Monitor
from workflow_scripts.training.objectives import Tokens
from workflow_scripts.training.watch import COMPLETE, Watch, last_state

SCHEDULES = {  # schedule → the name and the options that transformers has for it
    "constant": ("constant_with_warmup", None),
    "cosine": ("cosine", None),
    "cosine_min": ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    "linear": ("linear", None),
}
OF_TOKENS = ("behaviour", "reference", "advantage", "foreign", "length", "row", "pair")  # fields of Tokens in a bin


class RoundTrainer(Trainer):
    """Trains on planned bins. The loss is a sum divided by the number of the update's units over all ranks."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the whole update's units

    def __init__(
        self, *, settings: Train, bins: Bins, temperature: float, first: int, total: int, moments: str | None, **kwargs
    ):
        """
        Args:
            bins: the planned bins.
            temperature: log-probs are of logits / temperature.
            first: the number of updates of earlier rounds, for the schedule.
            total: the number of updates of the schedule.
            moments: a file with the optimizer's moments of the round before.
        """
        self.settings = settings
        self.bins = bins
        self.temperature = temperature
        self.first = first
        self.total = total
        self.moments = moments
        self.stopped: dict[str, Any] | None = None  # the update after which training stopped early, and why
        self.out_of_time = False
        self.adapters: Any = None
        super().__init__(data_collator=lambda items: items[0], train_dataset=bins, **kwargs)

        self.objective = objectives.load(settings.objective).loss
        self.unit = settings.unit
        self.monitor = Monitor(settings, self.unit)

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.bins)

    def _prepare_input(self, data):
        # The parent casts floats to bf16 under DeepSpeed: a log-prob of -512.734 would become -512.
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def create_optimizer(self, *args, **kwargs):
        """Create the optimizer, with the moments of the round before if they are carried over."""
        optimizer: Any = super().create_optimizer(*args, **kwargs)

        if self.moments:
            state = torch.load(self.moments, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
            self.moments = None

        return optimizer

    def create_scheduler(self, num_training_steps, optimizer: Any = None):
        """Create the schedule over `total` updates, of which this round's begin after `first`."""
        optimizer = self.optimizer if optimizer is None else optimizer
        warmup = round(self.settings.warmup * self.total)
        name, options = SCHEDULES[self.settings.schedule]
        schedule: Any = get_scheduler(name, optimizer, warmup, self.total, scheduler_specific_kwargs=options)
        shape = schedule.lr_lambdas[0]
        self.lr_scheduler = LambdaLR(optimizer, lambda update: shape(self.first + update))
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        bin_: dict[str, Any] = inputs
        logp = sampled_logps(model, bin_, self.temperature)
        tokens = Tokens(logp, *(bin_[name] for name in OF_TOKENS))
        total, metrics = self.objective(tokens, self.settings)
        self.monitor.count(tokens, metrics | {"loss": total.detach()}, bin_, self.model, self.state.global_step + 1)
        return total * self.args.world_size / bin_["update"][self.unit]  # gradients are averaged over ranks

    def over_ranks(self, values: list) -> list:
        """Return nested lists of numbers added up over all ranks."""
        summed: Any = self.accelerator.reduce(torch.tensor(values, device=self.args.device), "sum")
        return summed.tolist()

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        super().log(logs | self.monitor.take(self.over_ranks, self.args.world_size), *args, **kwargs)

    def full_state(self) -> dict[str, torch.Tensor] | None:
        """Return the fp32 weights, gathered from all ranks, if DeepSpeed holds them in parts; else None."""
        if not self.is_deepspeed_enabled:
            return None

        from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

        model: Any = self.model
        state = {}
        for name, parameter in model.named_parameters():  # a collective call for each
            full = safe_get_full_fp32_param(parameter)
            state[name] = (parameter if full is None else full).detach().to("cpu", torch.float32)

        buffers = {name: buffer for name, buffer in model.state_dict().items() if name not in state}
        return state | buffers


def prepare(
    model: str,
    rows: list[dict[str, Any]],
    settings: Train,
    *,
    temperature: float,
    seed: int,
    state: str,
    pad: int,
    round: int = 1,
    rounds: int = 1,
    moments: str | None = None,
    report: bool = False,
) -> RoundTrainer:
    """Return a trainer of the model in the folder `model` on `rows`, which saves its state in the folder `state`.

    `round` of `rounds` is where in the schedule this round stands; both are 1 for a schedule per round.
    """
    plan = plan_rows(rows, settings, seed)

    # The arguments come first: they tell transformers how ZeRO-3 loads a model. Weights are fp32 masters, because in
    # bf16 an update of 1e-6 would be lost.
    arguments = training_arguments(settings, state, plan.accumulation, plan.updates, seed, report)
    adapters = None
    if settings.lora:
        from workflow_scripts.training.adapters import load_with_adapters  # imported here: peft takes seconds to load

        policy, adapters = load_with_adapters(model, settings.lora, settings.dtype, seed, arguments.device)
        policy._hf_peft_config_loaded = True  # else the parent refuses weights in 4 bits
    else:
        policy = load_policy(model, "float32")

    trainer = RoundTrainer(
        settings=settings,
        bins=Bins(rows, plan, pad),
        temperature=temperature,
        first=(round - 1) * plan.updates,
        total=rounds * plan.updates,
        moments=moments,
        args=arguments,
        model=policy,
    )
    trainer.adapters = adapters
    policy._hf_peft_config_loaded = False  # else saved states would be of the parent's own adapters
    trainer.remove_callback(PrinterCallback)  # the bar shows what it would print
    trainer.add_callback(Watch(trainer))
    return trainer


def fit(model: str, rows: list[dict[str, Any]], settings: Train, *, state: str, **options) -> RoundTrainer:
    """Train and return the trainer. If a run was cut off, training resumes from `state`.

    `options` are those of `prepare`. Raise OutOfTime, after a save, if the job's time is nearly up.
    """
    trainer = prepare(model, rows, settings, state=state, **options)
    saved = last_state(state)

    if saved:
        if stopped := json.loads((saved / COMPLETE).read_text()):  # training had stopped early: nothing is left to do
            trainer.stopped = stopped
            trainer.args.max_steps = stopped["update"]
            per_update = trainer.args.gradient_accumulation_steps * trainer.args.world_size
            del trainer.bins.plan.bins[stopped["update"] * per_update :]
        say(f"train: going on from update {saved.name.split('-')[1]} of {trainer.args.max_steps} ({saved})")

    trainer.train(resume_from_checkpoint=str(saved) if saved else None)

    if trainer.out_of_time:
        progress = f"{trainer.state.global_step} of {trainer.args.max_steps}"
        raise OutOfTime(f"train: time is nearly up, update {progress} is saved")
    return trainer


def history(trainer: RoundTrainer) -> list[dict[str, Any]]:
    """Return the logged metrics, which saved states keep too, without those that differ from run to run."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{name: value for name, value in entry.items() if name not in TIMED} for entry in logged]
