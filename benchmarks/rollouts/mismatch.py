"""The error of an expectation under an engine in bf16, without and with the correction of `train.correction: token`.

The expectation is over the next token, of a value drawn for each token. It is a sum over the whole vocabulary, under
the policy in fp32 and under the same weights in bf16, so the errors are exact.
"""

from typing import Any

import torch

from benchmarks.rollouts import results
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.training.mismatch import weights

SCRATCH = {"layers": 4, "width": 64, "heads": 2, "mlp_width": 128, "context": 64, "init_std": 0.3}
CAP = 2.0


@torch.inference_mode()
def errors(seed: int) -> tuple[float, float]:
    """Return the errors with and without the correction, for a model and values drawn from this seed."""
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 300)
    model = make_model(SCRATCH, tokenizer, seed)
    ids = torch.tensor([tokenizer.encode("What is 3 + 4?")])

    scored = model(ids).logits[0, -1].double().log_softmax(-1)
    sampled = model.bfloat16()(ids).logits[0, -1].double().log_softmax(-1)
    value = torch.randn(len(scored), generator=torch.Generator().manual_seed(seed)).double()
    correction = torch.from_numpy(weights((scored - sampled).numpy(), "token", CAP)).double()

    expectation = (scored.exp() * value).sum()
    corrected = abs((sampled.exp() * correction * value).sum() - expectation)
    uncorrected = abs((sampled.exp() * value).sum() - expectation)
    return float(corrected), float(uncorrected)


def measure(repeats: int = 20) -> list[dict[str, Any]]:
    """Return the results of this part."""
    pairs = [errors(seed) for seed in range(repeats)]
    corrected, uncorrected = zip(*pairs)
    return [
        results.value("error_with_correction", corrected, "absolute error of an expectation"),
        results.value("error_without_correction", uncorrected, "absolute error of an expectation"),
    ]
