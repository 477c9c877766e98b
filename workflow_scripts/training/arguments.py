"""The settings of a training stage as the arguments of transformers' Trainer and the configuration of DeepSpeed."""

from typing import Any

import torch
from transformers import TrainingArguments

from workflow_scripts.config.sections import Train


def training_arguments(
    settings: Train, state: str, accumulation: int, updates: int, seed: int, report: bool
) -> TrainingArguments:
    """Return the Trainer's arguments.

    Args:
        state: the folder for saved states.
        accumulation: forward passes (bins) per update and process.
        updates: the number of updates.
        report: whether curves go to wandb.
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
        bf16=settings.dtype == "bfloat16" and not settings.deepspeed,  # autocast
        gradient_checkpointing=settings.gradient_checkpointing,
        deepspeed=deepspeed_config(settings),
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
        report_to="wandb" if report else "none",
        seed=seed,
    )


def deepspeed_config(settings: Train) -> dict[str, Any] | None:
    """Return the configuration of DeepSpeed.

    Weights stay fp32 and bf16 is autocast, as without DeepSpeed. With DeepSpeed's own bf16 each round would begin from
    rounded weights, and a round's small updates would be lost.
    """
    chosen = settings.deepspeed
    if chosen is None:
        return None

    zero: dict[str, Any] = {"stage": chosen.stage}
    if chosen.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if chosen.offload and chosen.stage == 3:
        zero["offload_param"] = {"device": "cpu"}

    return {
        "zero_optimization": zero,
        "torch_autocast": {"enabled": settings.dtype == "bfloat16", "dtype": "bfloat16"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
