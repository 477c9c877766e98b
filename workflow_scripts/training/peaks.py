"""Say how much memory a stage took, beside what was predicted for it (training/memory.py)."""

from pathlib import Path
from typing import Any

import torch

from workflow_scripts.config.sections import Train
from workflow_scripts.core.running.cli import say
from workflow_scripts.training import processes
from workflow_scripts.training.bins import Bins, TrainingRow, length_of
from workflow_scripts.training.memory import MASTER, Shape, scoring_bytes, training_bytes

SHARE = 0.02  # a model whose parameters differ by more from those of its shape is of a kind that is not predicted
STATUS = Path("/proc/self/status")


def process_bytes(field: str) -> int:
    """Return the resident memory of this process: now (VmRSS) or at its peak (VmHWM). It is 0 where nobody tells."""
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def shape_of(model: Any) -> Shape | None:
    """Return the shape of a model, or None for a kind whose memory is not predicted."""
    try:
        shape = Shape.of(model.config)
    except (AttributeError, TypeError):
        return None

    parameters = sum(parameter.numel() for parameter in model.parameters())
    writes_out_scores = getattr(model.config, "attn_logit_softcapping", None) is not None
    is_other_kind = writes_out_scores or abs(shape.parameters / parameters - 1) > SHARE
    return None if is_other_kind else shape


class StageMemory:
    """The memory of this process in a stage. It is made before the model is loaded."""

    def __init__(self, stage: str):
        self.stage = stage
        self.before = process_bytes("VmRSS")
        self.predicted: dict[str, float] = {}  # device and host → bytes

    def predict_training(self, model: Any, bins: Bins, settings: Train) -> None:
        """Predict the memory of a training, and say it."""
        shape = None if settings.deepspeed or settings.lora else shape_of(model)
        if shape is None:
            return

        counts = [bins.counts(bin_.units) for bin_ in bins.plan.bins]
        tokens = max((count["length"] for count in counts), default=0)
        sampled = max((count["tokens"] for count in counts), default=0)
        device = training_bytes(
            shape,
            tokens,
            sampled,
            is_bf16=settings.dtype == "bfloat16",
            is_checkpointed=settings.gradient_checkpointing,
            ranks=processes.count(),
            device=processes.device().type,
        )
        self._predict(shape, device)

    def predict_scoring(self, model: Any, rows: list[TrainingRow], tokens_per_bin: int, dtype: str) -> None:
        """Predict the memory of scoring, and say it."""
        shape = shape_of(model)
        if shape is None:
            return

        lengths = [length_of(row) for row in rows]
        tokens = max([min(tokens_per_bin, sum(lengths)), *lengths])
        sampled = min(tokens, sum(sum(row["mask"]) for row in rows))
        device = scoring_bytes(
            shape,
            tokens,
            sampled,
            is_bf16=dtype == "bfloat16",
            ranks=processes.count(),
            device=processes.device().type,
        )
        self._predict(shape, device)

    def _predict(self, shape: Shape, device: float) -> None:
        """Note the prediction. The first process loads all weights; on a CPU, all that follows is in its memory too."""
        loaded = 0 if processes.rank() else MASTER * shape.parameters
        if processes.device().type == "cpu":
            self.predicted = {"host": self.before + max(loaded, device)}
        else:
            self.predicted = {"device": device, "host": self.before + loaded}
        texts = [f"{place} {value / 2**30:.2f} GiB" for place, value in self.predicted.items()]
        say(f"{self.stage}: memory predicted for a process: {', '.join(texts)}")

    def report(self) -> dict[str, dict[str, int]]:
        """Say what this process took, and return {device or host: {predicted, measured}} in bytes."""
        measured: dict[str, float] = {}
        if torch.cuda.is_available():
            measured["device"] = torch.cuda.max_memory_allocated()
        if peak := process_bytes("VmHWM"):
            measured["host"] = peak

        texts = []
        both = {}
        for place, value in measured.items():
            text = f"{place} {value / 2**30:.2f} GiB"
            both[place] = {"measured": round(value)}
            if place in self.predicted:
                text += f" ({self.predicted[place] / 2**30:.2f} predicted)"
                both[place]["predicted"] = round(self.predicted[place])
            texts.append(text)

        say(f"{self.stage}: memory of this process: {', '.join(texts)}")
        return both
