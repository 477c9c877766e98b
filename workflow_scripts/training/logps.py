"""The one place that computes log-probs, for scoring and training alike.

A bin goes through the model's body once; only the rows that predict sampled tokens go through the head, in chunks,
so that the [T, V] logits never exist. The log-sum-exp is in fp32 whatever the weights are.
"""

from itertools import accumulate
from types import MethodType

import torch
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils.logging import disable_progress_bar

from workflow_scripts.core.pretrained import AutoModelForCausalLM, PreTrainedModel
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training import attention  # noqa: F401  registers "segments"
from workflow_scripts.training.bins import collate

disable_progress_bar()  # of loading and saving: the stage's own bar is enough

CHUNK = {"cpu": 2**25, "cuda": 2**28}  # bytes of fp32 logits that are made at a time
KEPT = {"cpu": 2**28, "cuda": 2**32}  # bytes of them kept for the backward pass; the rest is computed again
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # what models do to logits after the head


def load_policy(folder: str, dtype: str, **options) -> PreTrainedModel:
    """A causal language model whose forward pass takes a bin and returns log-probs (see `sampled_logps`)."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="segments", use_cache=False, **options
    )
    for key in RESCALED:
        if getattr(model.config, key, None) not in (None, 1, 1.0):
            raise BadInput(f"{folder}: {type(model).__name__} rescales its logits ({key}), which log-probs here do not")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # a ratio against stored log-probs would be noise
    head = model.get_output_embeddings()
    expected = None if is_deepspeed_zero3_enabled() else _alone(model)
    # Bound to the modules themselves, so that DDP's and ZeRO's hooks see these calls.
    head.forward, model.forward = MethodType(_head, head), MethodType(_forward, model)
    if expected is not None:  # whose pieces lie with other ranks otherwise
        _check(model, folder, expected, 1e-4 if not options else 0.1)  # quantized weights compute in bf16
    return model


PROBE = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16, 17, 18]]  # two rows of token ids


@torch.no_grad()
def _alone(model) -> torch.Tensor:
    """Log-probs of the probe's rows one at a time, by transformers' own forward pass and attention."""
    model.eval().set_attn_implementation("eager")
    logits = [model(input_ids=torch.tensor([row], device=model.device)).logits[0, :-1].float() for row in PROBE]
    targets = [torch.tensor(row[1:], device=model.device) for row in PROBE]
    model.set_attn_implementation("segments")
    return torch.cat([one.log_softmax(-1).gather(-1, ids[:, None])[:, 0] for one, ids in zip(logits, targets)])


@torch.no_grad()
def _check(model, folder: str, expected: torch.Tensor, tolerance: float) -> None:
    """The same rows packed, as in training, give the same: else rows see each other, or noise is drawn."""
    rows = [{"prompt_tokens": row[:1], "tokens": row[1:], "mask": [1] * (len(row) - 1)} for row in PROBE]
    try:
        packed = collate(rows, 0)
        packed |= {name: value.to(model.device) for name, value in packed.items() if torch.is_tensor(value)}
        apart = (sampled_logps(model.train(), packed) - expected).abs().max().item()
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise BadInput(f"{folder}: {type(model).__name__} cannot be packed: {type(error).__name__}: {error}") from None
    if not apart < tolerance:
        raise BadInput(
            f"{folder}: log-probs of packed rows differ by {apart:.2g} from those of the rows alone, so "
            f"{type(model).__name__} mixes rows in ways that packed attention does not stop, or has dropout that stays "
            "on in training"
        )


def sampled_logps(model: torch.nn.Module, inputs: dict, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs [N], in fp32, of a bin's sampled tokens under logits / temperature.

    `inputs` is a bin of `bins.collate`; `model` comes from `load_policy` and may be wrapped since.
    """
    used = {name: inputs[name] for name in ("input_ids", "position_ids", "lengths", "keep", "targets")}
    return model(**used, temperature=temperature)


def _forward(self, input_ids, position_ids, lengths, keep, targets, temperature):
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=input_ids.device)
    hidden = self.get_decoder()(
        input_ids=input_ids, position_ids=position_ids, lengths=lengths, cu_seqlens=ends, use_cache=False
    ).last_hidden_state
    return self.get_output_embeddings()(hidden[0, keep], targets, temperature)


def _head(self, hidden, targets, temperature):
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
    return TokenLogps.apply(hidden.to(dtype), self.weight, self.bias, targets, temperature)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right in fp32, from operands of lower precision too."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right).float()


class TokenLogps(torch.autograd.Function):
    """hidden [N, H], weight [V, H], bias [V] or None, targets [N] → fp32 log softmax((h Wᵀ + b) / T)[target], [N].

    Rows go through in chunks. Logits are kept for the backward pass up to a fixed size, and computed again beyond
    it: 2NHV more operations, in place of NV floats.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature):
        device = hidden.device.type
        size = max(1, CHUNK[device] // (4 * weight.shape[0]))
        ctx.temperature, ctx.chunks, ctx.kept = temperature, list(range(0, len(targets), size)), []
        room = KEPT[device] if any(ctx.needs_input_grad) else 0
        norms, values = [], []
        for start in ctx.chunks:
            logits = TokenLogps.logits(hidden[start : start + size], weight, bias, temperature)
            norms.append(logits.logsumexp(-1))
            values.append(logits.gather(-1, targets[start : start + size, None])[:, 0] - norms[-1])
            room -= logits.nbytes
            ctx.kept.append(logits if room >= 0 else None)
        empty = hidden.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat([empty, *norms]))
        ctx.size = size
        return torch.cat([empty, *values])

    @staticmethod
    def logits(hidden, weight, bias, temperature):
        logits = _product(hidden, weight.to(hidden.dtype).T)
        return (logits if bias is None else logits.add_(bias)).div_(temperature)

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias, targets, norms = ctx.saved_tensors
        cast, grads = weight.to(hidden.dtype), []
        trained = ctx.needs_input_grad[1]  # a frozen head (LoRA) needs none
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if trained else None
        grad_bias = (
            torch.zeros(bias.shape, dtype=torch.float32, device=bias.device) if ctx.needs_input_grad[2] else None
        )
        for number, start in enumerate(ctx.chunks):
            rows = slice(start, start + ctx.size)
            logits, ctx.kept[number] = ctx.kept[number], None
            if logits is None:
                logits = TokenLogps.logits(hidden[rows], weight, bias, ctx.temperature)
            scale = grad[rows, None] / ctx.temperature
            pull = logits.sub_(norms[rows, None]).exp_().mul_(-scale)  # (1[target] - softmax) · grad / T
            pull.scatter_add_(1, targets[rows, None], scale)
            if grad_bias is not None:
                grad_bias += pull.sum(0)
            pull = pull.to(hidden.dtype)
            grads.append(torch.mm(pull, cast))
            if trained and hidden.dtype == torch.float32:
                grad_weight.addmm_(pull.T, hidden[rows])
            elif trained:
                grad_weight += _product(pull.T, hidden[rows])
        grad_hidden = torch.cat([hidden.new_zeros(0, hidden.shape[1]), *grads])
        return grad_hidden, grad_weight.to(weight.dtype) if trained else None, grad_bias, None, None
