"""The settings of a training stage as the arguments of transformers' Trainer."""

import torch
from transformers import TrainingArguments

from workflow_scripts.config.sections import Train
from workflow_scripts.training import fsdp, zero


def training_arguments(
    settings: Train, state: str, accumulation: int, updates: int, seed: int, report: str
) -> TrainingArguments:
    """Return the Trainer's arguments.

    Args:
        state: the folder for saved states.
        accumulation: forward passes (bins) per update and process.
        updates: the number of updates.
        report: where curves go: wandb, tensorboard, mlflow or none.
    """
    return TrainingArguments(
        output_dir=state,
        per_device_train_batch_size=1,  # one bin
        gradient_accumulation_steps=accumulation,
        max_steps=updates,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_eps,
        max_grad_norm=settings.grad_norm,
        bf16=settings.dtype == "bfloat16" and not fsdp.is_divided(settings),
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        deepspeed=zero.configuration(settings),
        ddp_find_unused_parameters=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,  # one of them may be half written
        logging_steps=max(1, updates // 50),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=report,
        seed=seed,
    )
