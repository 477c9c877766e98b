"""The one place that computes log-probs, for scoring and training alike.

A bin goes through the model's body once. Only the rows that predict sampled tokens go through the head, in chunks, so
that the [T, V] logits never exist. The log-sum-exp is in fp32 whatever the weights are.
"""

from dataclasses import dataclass
from itertools import accumulate
from types import MethodType
from typing import Any

import torch
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils.logging import disable_progress_bar

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pretrained import AutoConfig, AutoModelForCausalLM
from workflow_scripts.training import attention, experts, fsdp, processes  # noqa: F401  attention registers "segments"
from workflow_scripts.training.bins import collate
from workflow_scripts.training.limits import CHUNK, KEPT

disable_progress_bar()  # of loading and saving: the stage's own bar is enough

LAYERS = {"full_attention", "sliding_attention"}  # kinds of layers that can be packed
TAKEN = ("input_ids", "position_ids", "lengths", "keep", "targets")  # of a bin by the forward pass
PROBE = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16, 17, 18]]  # two rows of token ids


def arithmetic(dtype: str) -> str:
    """Return the name of the arithmetic that log-probs are computed in, for passports.

    In bf16, the weights and all that layers compute are bf16. Earlier versions kept fp32 weights, with autocast, and
    called that bfloat16.
    """
    return {"bfloat16": "bfloat16 weights"}.get(dtype, dtype)


# ---------------------------------------------------------------- loading


def load_policy(folder: str, dtype: str, **options: Any) -> Any:
    """Return a causal language model whose forward pass takes a bin and returns log-probs (see `sampled_logps`).

    Raise BadInput for a model whose log-probs of packed rows differ from those of the rows alone.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="segments", use_cache=False, **options
    )
    return as_policy(model, folder, tolerance=1e-4 if not options else 0.1)  # quantized weights compute in bf16


def empty_policy(folder: str) -> Any:
    """Return the policy in `folder` without its weights, on the meta device: another process sends them."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="segments")
    return as_policy(model, folder)


def load_scorer(folder: str, dtype: str) -> Any:
    """Return the policy in `folder` for scoring, in `dtype`, divided over all processes if there are several.

    The weights are checked in fp32 and then rounded, as training rounds its fp32 weights for each layer's computation.
    """
    model = empty_policy(folder) if processes.rank() else load_policy(folder, "float32")
    model.eval().requires_grad_(False)
    round_weights(model, getattr(torch, dtype))

    if processes.count() == 1:
        return model.to(processes.device())

    processes.join()
    fsdp.divide(model)
    return model


def round_weights(model: Any, dtype: torch.dtype) -> None:
    """Round the weights of a model to `dtype`, in place. Buffers, such as rotary frequencies, keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def as_policy(model: Any, folder: str, tolerance: float = 1e-4) -> Any:
    """Give a model the forward pass of a policy and return it. `folder` names the model in errors."""
    if others := sorted(set(getattr(model.config, "layer_types", None) or ()) - LAYERS):
        raise BadInput(
            f"{folder}: {type(model).__name__} has layers of the kind {', '.join(others)}, which cannot be packed; "
            f"only {' and '.join(sorted(LAYERS))} can"
        )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # ratios against stored log-probs would be noisy

    head: Any = model.get_output_embeddings()
    has_weights = not is_deepspeed_zero3_enabled() and model.device.type != "meta"
    expected = _logps_alone(model) if has_weights else None

    # The methods are bound to the modules themselves, so that the hooks of FSDP and ZeRO see these calls.
    head.forward = MethodType(_head_forward, head)
    model.forward = MethodType(_forward, model)
    if expected is not None:  # else weights, or parts of them, are on other ranks
        _check_packing(model, folder, expected, tolerance)

    return model


@torch.no_grad()
def _logps_alone(model: Any) -> torch.Tensor:
    """Return log-probs of the probe's rows one at a time, by transformers' own forward pass and attention."""
    model.eval().set_attn_implementation("eager")
    parts = []

    for row in PROBE:
        logits = model(input_ids=torch.tensor([row], device=model.device)).logits[0, :-1].float()
        targets = torch.tensor(row[1:], device=model.device)
        parts.append(logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0])

    model.set_attn_implementation("segments")
    return torch.cat(parts)


@torch.no_grad()
def _check_packing(model: Any, folder: str, expected: torch.Tensor, tolerance: float) -> None:
    """Check that the same rows, packed as in training, give the same log-probs.

    If they do not, rows see each other, or noise is drawn.
    """
    rows = [{"prompt_tokens": row[:1], "tokens": row[1:], "mask": [1] * (len(row) - 1)} for row in PROBE]

    try:
        packed = collate(rows, 0)
        packed |= {name: value.to(model.device) for name, value in packed.items() if torch.is_tensor(value)}
        difference = (sampled_logps(model.train(), packed) - expected).abs().max().item()
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise BadInput(f"{folder}: {type(model).__name__} cannot be packed: {type(error).__name__}: {error}") from None

    if not difference < tolerance:
        raise BadInput(
            f"{folder}: log-probs of packed rows differ by {difference:.2g} from those of the rows alone, so "
            f"{type(model).__name__} mixes rows in ways that packed attention does not stop, or has dropout that stays "
            "on in training"
        )


# ---------------------------------------------------------------- the forward pass


def sampled_logps(model: Any, inputs: dict[str, Any], temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probs [N], in fp32, of a bin's sampled tokens under logits / temperature.

    `inputs` is a bin from `bins.collate`. `model` comes from `load_policy` and may have been wrapped since.
    """
    return model(**{name: inputs[name] for name in TAKEN}, temperature=temperature)


def logps_and_balance(
    model: Any, inputs: dict[str, Any], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same log-probs, and the bin's auxiliary loss of a mixture of experts (see `experts.balance`)."""
    outputs = logps_and_terms(model, inputs, temperature, ("balance",))
    return outputs["logps"], outputs["balance"]


def logps_and_terms(
    model: Any, inputs: dict[str, Any], temperature: float = 1.0, terms: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """Return `logps` [N], as `sampled_logps` does, and further terms of the same forward pass, all with gradients.

    `entropies` [N] are the exact entropies, in nats, of the distributions over the next token at each sampled token.
    `balance` is the bin's auxiliary loss of a mixture of experts (see `experts.balance`).
    """
    logps = model(**{name: inputs[name] for name in TAKEN}, temperature=temperature, terms=terms)
    return logps if terms else {"logps": logps}


def _forward(self, input_ids, position_ids, lengths, keep, targets, temperature, terms=()):
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=input_ids.device)
    options = {"output_router_logits": True} if "balance" in terms else {}
    output = self.get_decoder()(
        input_ids=input_ids, position_ids=position_ids, lengths=lengths, cu_seqlens=ends, use_cache=False, **options
    )
    divisor, cap = rescaling(self.config)
    hidden = output.last_hidden_state[0, keep]
    logps = self.get_output_embeddings()(hidden, targets, Logits(divisor, cap, temperature), "entropies" in terms)
    if not terms:
        return logps

    outputs: dict[str, torch.Tensor] = {"logps": logps}
    if "entropies" in terms:
        outputs["logps"], outputs["entropies"] = logps
    if "balance" in terms:
        outputs["balance"] = experts.balance(self, output.router_logits)
    return outputs


@dataclass(frozen=True)
class Logits:
    """How the head's products become the logits that are sampled from: cap · tanh(product / divisor / cap) / T."""

    divisor: float = 1.0
    cap: float | None = None
    temperature: float = 1.0


def rescaling(config: Any) -> tuple[float, float | None]:
    """Return what a model does to logits after its head: the divisor (Granite, Cohere) and the soft cap (Gemma 2)."""
    divisor = getattr(config, "logits_scaling", None) or 1.0
    divisor /= getattr(config, "logit_scale", None) or 1.0
    return divisor, getattr(config, "final_logit_softcapping", None)


def _head_forward(self, hidden, targets, scaling, with_entropies=False):
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
    return TokenLogps.apply(hidden.to(dtype), self.weight, self.bias, targets, scaling, with_entropies)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left @ right in fp32, also from operands of lower precision."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right).float()


class TokenLogps(torch.autograd.Function):
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] → fp32 log softmax(logits)[target], [N].

    The logits are those of h Wᵀ + b, rescaled (see `Logits`). Rows go through in chunks. Logits are kept for the
    backward pass up to a fixed size and computed again beyond it: 2NHV more operations in place of NV floats.

    With entropies, the result is (log-probs [N], entropies [N]). They need a second array of a chunk's size, so chunks
    have half the size then, and the memory stays the same.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, scaling, with_entropies=False):  # type: ignore[override]
        device = hidden.device.type
        size = max(1, CHUNK[device] // (4 * weight.shape[0]) // (2 if with_entropies else 1))
        room = KEPT[device] if any(ctx.needs_input_grad) else 0
        ctx.size = size
        ctx.scaling = scaling
        ctx.chunks = list(range(0, len(targets), size))
        ctx.kept = []
        norms = []
        values = []
        entropies = []
        cast = weight.to(hidden.dtype)  # once, not in each chunk

        for start in ctx.chunks:
            logits = TokenLogps.logits(hidden[start : start + size], cast, bias, scaling)
            norms.append(logits.logsumexp(-1))
            values.append(logits.gather(-1, targets[start : start + size, None])[:, 0] - norms[-1])
            if with_entropies:  # of p = softmax(z): log Σ exp(z) - Σ p z
                probabilities = (logits - norms[-1][:, None]).exp_()
                entropies.append(norms[-1] - probabilities.mul_(logits).sum(-1))
            room -= logits.nbytes
            ctx.kept.append(logits if room >= 0 else None)

        empty = hidden.new_zeros(0, dtype=torch.float32)
        entropy = torch.cat([empty, *entropies]) if with_entropies else None
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat([empty, *norms]), entropy)
        logps = torch.cat([empty, *values])
        return (logps, entropy) if with_entropies else logps

    @staticmethod
    def logits(hidden, weight, bias, scaling):
        logits = _product(hidden, weight.T)
        if bias is not None:
            logits.add_(bias)
        if scaling.cap is None:
            return logits.div_(scaling.divisor * scaling.temperature)
        return logits.div_(scaling.divisor * scaling.cap).tanh_().mul_(scaling.cap / scaling.temperature)

    @staticmethod
    def backward(ctx, grad, grad_entropy=None):  # type: ignore[override]
        hidden, weight, bias, targets, norms, entropy = ctx.saved_tensors
        cast = weight.to(hidden.dtype)
        grad_weight = _zeros_like(weight) if ctx.needs_input_grad[1] else None  # a frozen head (LoRA) needs none
        grad_bias = _zeros_like(bias) if ctx.needs_input_grad[2] else None
        grads = []

        for number, start in enumerate(ctx.chunks):
            rows = slice(start, start + ctx.size)
            logits = ctx.kept[number]
            ctx.kept[number] = None
            if logits is None:
                logits = TokenLogps.logits(hidden[rows], cast, bias, ctx.scaling)

            of_entropy = (entropy[rows, None], grad_entropy[rows, None]) if grad_entropy is not None else ()
            pull = TokenLogps.pull(
                logits, norms[rows, None], targets[rows, None], grad[rows, None], ctx.scaling, *of_entropy
            )
            if grad_bias is not None:
                grad_bias += pull.sum(0)

            pull = pull.to(hidden.dtype)
            grads.append(torch.mm(pull, cast))
            if grad_weight is None:
                continue
            if hidden.dtype == torch.float32:
                grad_weight.addmm_(pull.T, hidden[rows])
            else:
                grad_weight += _product(pull.T, hidden[rows])

        grad_hidden = torch.cat([hidden.new_zeros(0, hidden.shape[1]), *grads])
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None

    @staticmethod
    def pull(logits, norms, targets, grad, scaling, entropy=None, grad_entropy=None):
        """Return the gradient of the head's products, in place of `logits`: (1[target] - p) times their slope.

        With the entropy H, -p (log p + H) times the gradient by it is added.
        """
        slope = None
        if scaling.cap is not None:  # of cap · tanh(product / cap)
            slope = 1 - (logits * (scaling.temperature / scaling.cap)).square_()

        scale = grad / (scaling.divisor * scaling.temperature)
        logits.sub_(norms)
        if entropy is None:
            pull = logits.exp_().mul_(-scale)
        else:
            scale_entropy = grad_entropy / (scaling.divisor * scaling.temperature)
            probabilities = logits.exp()
            pull = logits.add_(entropy).mul_(-scale_entropy).sub_(scale).mul_(probabilities)
        pull.scatter_add_(1, targets, scale)
        return pull if slope is None else pull.mul_(slope)


def _zeros_like(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
