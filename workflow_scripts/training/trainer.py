"""One subclass of transformers.Trainer serves every objective."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, get_scheduler

from workflow_scripts.config.sections import Train
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.deadline import OutOfTime
from workflow_scripts.training import experts, fsdp, objectives, processes, states, zero
from workflow_scripts.training.arguments import training_arguments
from workflow_scripts.training.bins import Bins, plan_rows
from workflow_scripts.training.logps import empty_policy, load_policy, logps_and_terms
from workflow_scripts.training.monitor import TIMED, Monitor
from workflow_scripts.training.objectives import Tokens
from workflow_scripts.training.peaks import StageMemory
from workflow_scripts.training.watch import COMPLETE, Watch, last_state

SCHEDULES = {  # schedule → the name and the options that transformers has for it
    "constant": ("constant_with_warmup", None),
    "cosine": ("cosine", None),
    "cosine_min": ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    "linear": ("linear", None),
}
SCHEDULE = "scheduler.pt"  # of the learning rate, in a saved state
OF_TOKENS = (
    "behaviour",
    "reference",
    "advantage",
    "foreign",
    "length",
    "row",
    "pair",
    "start_kl",
)  # fields of Tokens in a bin


class RoundTrainer(Trainer):
    """Trains on planned bins. The loss is a sum divided by the number of the update's units over all ranks."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the whole update's units

    def __init__(
        self,
        *,
        start: str,
        settings: Train,
        bins: Bins,
        temperature: float,
        first: int,
        total: int,
        moments: str | None,
        memory: StageMemory,
        **kwargs,
    ):
        """
        Args:
            start: the folder of the model that training starts from.
            bins: the planned bins.
            temperature: log-probs are of logits / temperature.
            first: the number of updates of earlier rounds, for the schedule.
            total: the number of updates of the schedule.
            moments: a file or folder with the optimizer's moments of the round before.
            memory: what this process takes.
        """
        self.start = start
        self.settings = settings
        self.bins = bins
        self.temperature = temperature
        self.first = first
        self.total = total
        self.moments = moments
        self.stopped: dict[str, Any] | None = None  # the update after which training stopped early, and why
        self.out_of_time = False
        self.adapters: Any = None
        self.memory = memory
        self.is_divided = bool(settings.deepspeed) or fsdp.is_divided(settings)  # no rank holds whole weights
        super().__init__(data_collator=lambda items: items[0], train_dataset=bins, **kwargs)

        self.objective = objectives.load(settings.objective).loss
        self.unit = settings.unit
        self.monitor = Monitor(settings, self.unit, replays=any(row.get("replayed") for row in bins.rows))

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
            states.load_moments(Path(self.moments), self.model, optimizer)
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
        outputs = logps_and_terms(model, bin_, self.temperature, self.terms)
        balance = outputs.get("balance")
        tokens = Tokens(outputs["logps"], *(bin_[name] for name in OF_TOKENS))
        total, metrics = self.objective(tokens, self.settings)
        if (entropies := outputs.get("entropies")) is not None:
            total = total - self.settings.entropy * tokens.total(entropies, self.settings)
            metrics["exact_entropy"] = tokens.metric(entropies.detach(), self.settings)
        if balance is not None:
            metrics |= {"router_loss": balance.detach() * bin_["bin"][self.unit]}
        self.monitor.count(tokens, metrics | {"loss": total.detach()}, bin_, self.model, self.state.global_step + 1)
        world = self.args.world_size  # gradients are averaged over ranks
        loss = total * world / bin_["update"][self.unit]
        if balance is not None:
            share = bin_["bin"]["length"] / bin_["update"]["length"]
            loss = loss + self.settings.router_loss * balance * world * share
        return loss

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the loss beside the objective: see `logps_and_terms`."""
        terms = {"entropies": self.settings.entropy, "balance": self.settings.router_loss}
        return tuple(name for name, weight in terms.items() if weight)

    def over_ranks(self, values: list) -> list:
        """Return nested lists of numbers added up over all ranks."""
        summed: Any = self.accelerator.reduce(torch.tensor(values, device=self.args.device), "sum")
        return summed.tolist()

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        super().log(logs | self.monitor.take(self.over_ranks, self.args.world_size), *args, **kwargs)

    def restore_precision(self) -> None:
        """Undo the rounding that DeepSpeed does in bf16 when it starts."""
        if self.is_deepspeed_enabled and self.settings.dtype == "bfloat16":
            has_begun = self.state.global_step > 0
            zero.restore(self.model, self.start, self.args.hf_deepspeed_config, has_begun=has_begun)

    # ------------------------------------------------------------ saved states

    def save_model(self, output_dir=None, _internal_call=False) -> None:
        """Write nothing: the weights are saved with the moments, once."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return

        states.save(output_dir, self.model, self.own_optimizer())
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULE)  # type: ignore[union-attr]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Load nothing: the weights are loaded with the moments."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return

        states.load(checkpoint, self.model, self.own_optimizer())
        schedule = torch.load(Path(checkpoint) / SCHEDULE, weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)  # type: ignore[union-attr]

    def own_optimizer(self) -> Any:
        """Return the optimizer without accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)


def load_for_training(folder: str, settings: Train, seed: int) -> tuple[Any, Any]:
    """Return the policy in `folder`, and its adapters if it is trained by LoRA.

    Weights are fp32 masters, because in bf16 an update of 1e-6 would be lost.
    """
    is_divided = fsdp.is_divided(settings)
    adapters = None

    if is_divided and processes.rank():
        policy = empty_policy(folder)
    elif settings.lora and settings.lora.bits:
        from workflow_scripts.training.adapters import load_options  # peft takes seconds to load

        policy = load_policy(folder, "float32", **load_options(settings.dtype))
    else:
        policy = load_policy(folder, "float32")

    if settings.router_loss:
        experts.check(policy, folder)
    if settings.lora:
        from workflow_scripts.training.adapters import add_adapters

        adapters = add_adapters(policy, settings.lora, seed)
        policy._hf_peft_config_loaded = True  # else the parent refuses weights in 4 bits

    if is_divided:
        processes.join()
        fsdp.divide(policy, torch.bfloat16 if settings.dtype == "bfloat16" else None)
        policy._is_accelerate_prepared = True  # else accelerate would wrap it in DDP

    return policy, adapters


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
    report: str = "none",
) -> RoundTrainer:
    """Return a trainer of the model in the folder `model` on `rows`, which saves its state in the folder `state`.

    `round` of `rounds` is where in the schedule this round stands; both are 1 for a schedule per round.
    """
    plan = plan_rows(rows, settings, seed)
    memory = StageMemory("train")

    # The arguments come first: they tell transformers how ZeRO-3 loads a model.
    arguments = training_arguments(settings, state, plan.accumulation, plan.updates, seed, report)
    policy, adapters = load_for_training(model, settings, seed)
    bins = Bins(rows, plan, pad)
    memory.predict_training(policy, bins, settings)

    trainer = RoundTrainer(
        start=model,
        settings=settings,
        bins=bins,
        temperature=temperature,
        first=(round - 1) * plan.updates,
        total=rounds * plan.updates,
        moments=moments,
        memory=memory,
        args=arguments,
        model=policy,
    )
    trainer.adapters = adapters
    policy._hf_peft_config_loaded = False  # else the model would be published as the parent's own adapters
    trainer.remove_callback(PrinterCallback)  # the bar shows what it would print
    trainer.add_callback(Watch(trainer))
    return trainer


def fit(model: str, rows: list[dict[str, Any]], settings: Train, *, state: str, **options) -> RoundTrainer:
    """Train and return the trainer. If a run was cut off, training resumes from `state`.

    `options` are those of `prepare`. Raise OutOfTime, after a save, if the job's time is nearly up.
    """
    trainer = prepare(model, rows, settings, state=state, **options)
    saved = processes.from_first(lambda: last_state(state))

    if saved:
        if stopped := processes.from_first(
            lambda: json.loads((saved / COMPLETE).read_text())
        ):  # training had stopped early: nothing is left to do
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
