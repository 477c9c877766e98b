"""The auxiliary loss that keeps the experts of a mixture evenly used (Switch Transformer, arXiv 2101.03961, eq. 4–6).

It is that of transformers: over all tokens and layers, experts · Σ (share of tokens that go to an expert) · (mean
probability that the router gives it). Each is a mean over tokens, so a bin has the loss of the same rows as a padded
batch whose padding is masked.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from workflow_scripts.core.errors import BadInput

NAME = "load_balancing_loss_func"  # in the modules of transformers that have it


def check(model: Any, folder: str) -> None:
    """Raise BadInput if a model has no router."""
    if _function(model) is None:
        raise BadInput(
            f"train.router_loss: {folder} ({type(model).__name__}) is no mixture of experts for which transformers has "
            "an auxiliary loss; leave router_loss at 0"
        )


def balance(model: Any, router_logits: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the loss of a bin, a scalar. `router_logits` has [T, experts] for each layer."""
    function = _function(model)
    assert function is not None
    return function(router_logits, model.num_experts, model.num_experts_per_tok)


def _function(model: Any) -> Callable[..., Any] | None:
    """Return the loss function in the module of a model's class. FSDP2 puts a class of its own before that one."""
    for kind in type(model).__mro__:
        if function := getattr(sys.modules[kind.__module__], NAME, None):
            return function
    return None
