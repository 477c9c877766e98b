"""One subclass of transformers.Trainer serves every objective."""

import math
import os
from collections import defaultdict
from pathlib import Path

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from workflow_scripts.core.cli import progress, say
from workflow_scripts.training import bins
from workflow_scripts.training.logps import sampled_logps
from workflow_scripts.training.objectives import OBJECTIVES, Tokens

COMPLETE = "complete"  # marks a saved state that was written to its end


class Bins(Dataset):
    """The planned bins as a dataset: an item is a whole forward pass."""

    def __init__(self, rows: list[dict], planned: list[bins.Bin], pad: int):
        self.rows, self.planned, self.pad = rows, planned, pad

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        planned = self.planned[index]
        item = bins.collate([self.rows[i] for i in planned.rows], self.pad)
        return item | {"update_tokens": torch.tensor(planned.tokens)}


class RoundTrainer(Trainer):
    """Trains on planned bins; the loss is a sum over tokens divided by the update's tokens over all ranks."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the whole update's tokens

    def __init__(self, *, objective: str, settings: dict, temperature: float, **kwargs):
        super().__init__(data_collator=lambda items: items[0], **kwargs)
        self.objective, self.settings, self.temperature = OBJECTIVES[objective], settings, temperature
        self.sums = defaultdict(float)

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def _prepare_input(self, data):
        # The parent casts floats to bf16 under DeepSpeed: a log-prob of -512.734 would become -512.
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logp = sampled_logps(model, inputs, self.temperature)
        tokens = Tokens(logp, inputs["behaviour"], inputs["advantage"], inputs["foreign"])
        total, metrics = self.objective(tokens, self.settings)
        loss = total * self.args.world_size / inputs["update_tokens"]  # ranks are averaged
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at update {self.state.global_step + 1}: lower lr, or look at the "
                f"advantages and log-probs of this update ({self.settings['objective']})"
            )
        for name, value in metrics.items():
            self.sums[name] += value.item()
        self.sums["tokens"] += logp.numel()
        return loss

    def log(self, logs: dict, *args, **kwargs):
        count = self.sums.pop("tokens", 0)
        if count:
            logs |= {name: value / count for name, value in self.sums.items()}
        self.sums.clear()
        super().log(logs, *args, **kwargs)


class Watch(TrainerCallback):
    """A progress bar, and a mark on each saved state that is whole."""

    def on_train_begin(self, args, state, control, **_):
        self.bar = progress(total=state.max_steps, desc="train", unit="update")
        self.bar.update(state.global_step)

    def on_step_end(self, args, state, control, **_):
        self.bar.update(1)

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", grad_norm=f"{logs.get('grad_norm', math.nan):.3f}")

    def on_save(self, args, state, control, **_):
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def last_state(folder: str | Path) -> Path | None:
    """The newest saved state that was written to its end."""
    marks = sorted(Path(folder).glob(f"checkpoint-*/{COMPLETE}"), key=lambda p: int(p.parent.name.split("-")[1]))
    return marks[-1].parent if marks else None


def fit(model, rows: list[dict], settings: dict, temperature: float, seed: int, state: str, pad: int) -> dict:
    """Train `model` in place on `rows`, resuming from `state` if a run was cut off there; counts and history."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    lengths = [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]
    planned, accumulation = bins.plan(
        lengths,
        [sum(row["mask"]) for row in rows],
        settings["batch_size"],
        settings["epochs"],
        settings["tokens_per_bin"],
        seed,
        world,
    )
    schedules = {"constant": "constant_with_warmup", "cosine": "cosine", "linear": "linear"}
    updates = len(planned) // (accumulation * world)
    args = TrainingArguments(
        output_dir=state,
        per_device_train_batch_size=1,  # one bin
        gradient_accumulation_steps=accumulation,
        max_steps=updates,
        learning_rate=settings["lr"],
        lr_scheduler_type=schedules[settings["schedule"]],
        warmup_steps=round(settings["warmup"] * updates),
        weight_decay=settings["weight_decay"],
        adam_beta2=settings["adam_beta2"],
        adam_epsilon=settings["adam_eps"],
        max_grad_norm=settings["grad_norm"],
        bf16=settings["dtype"] == "bfloat16",  # autocast
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=settings["save_steps"],
        save_total_limit=2,  # one may be half written
        logging_steps=max(1, updates // 50),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
    trainer = RoundTrainer(
        objective=settings["objective"],
        settings=settings,
        temperature=temperature,
        model=model,
        args=args,
        train_dataset=Bins(rows, planned, pad),
        callbacks=[Watch()],
    )
    trainer.remove_callback(PrinterCallback)  # the bar shows what it would print
    resume = last_state(state)
    if resume:
        say(f"train: going on from update {resume.name.split('-')[1]} of {updates} ({resume})")
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]  # kept in saved states too
    return {"updates": updates, "rows": len(rows), "history": history}
