"""Check log-probs and gradients against transformers' own forward pass, attention and full logits.

Bounds in bf16 compare errors. Our path and that of transformers both differ from an fp32 reference by rounding, and
ours may differ 1.5 times as much. A wrong mask or scale exceeds that many times.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from benchmarks.gpu import right_stages
from benchmarks.gpu.setting import FAMILIES, LARGE, Bench, Row, make_rows, sampled_of, save_checkpoint, small_config
from workflow_scripts.training import attention, bins, logps
from workflow_scripts.training.logps import load_policy, round_weights, sampled_logps

FP32_LOGPS = 1e-4
FP32_LOGPS_REASON = "fp32 rounding (6e-8 of logits near 10) over some hundred additions; a wrong mask gives 0.1"
FP32_GRADIENTS = 1e-4
FP32_GRADIENTS_REASON = "relative to the gradient's norm; fp32 sums in another order"
TIMES = 1.5
BF16_REASON = f"{TIMES} times the error of transformers' eager attention with the same rounded weights, against fp32"
FLOOR = 1e-6  # added to bounds that are relative to an error, which could be 0

Scored = tuple[torch.Tensor, dict[str, torch.Tensor]]  # log-probs of all sampled tokens, and gradients by parameter


def measure(bench: Bench) -> None:
    for name, check in {
        "attention": check_attention,
        "head": check_head,
        "models": check_models,
        "stages": right_stages.check,
        "large": check_large,
    }.items():
        if bench.has_time(5, name):
            check(bench)


# ---------------------------------------------------------------- two ways of scoring rows


def loss_of(logp: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """Return the policy-gradient loss of log-probs in the order of the rows."""
    advantages = [row["advantage"] for row in rows for _ in range(sum(row["mask"]))]
    return -(torch.tensor(advantages, device=logp.device) * logp).sum() / len(advantages)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of a model and remove them from it."""
    taken = {}
    for name, parameter in model.named_parameters():
        taken[name] = parameter.grad.float().clone()
        parameter.grad = None
    return taken


def packed(policy: Any, rows: list[Row], device: str) -> Scored:
    """Score rows in one bin, as production does."""
    inputs = bins.collate(rows, 0)
    inputs |= {name: value.to(device) for name, value in inputs.items() if torch.is_tensor(value)}

    logp = sampled_logps(policy, inputs)
    loss_of(logp, rows).backward()
    return logp.detach(), gradients(policy)


def one_at_a_time(stock: Any, rows: list[Row], device: str) -> Scored:
    """Score rows alone, by transformers' own forward pass, eager attention and all logits."""
    parts = []
    total = sampled_of(rows)

    for row in rows:
        ids = torch.tensor([row["prompt_tokens"] + row["tokens"]], device=device)
        logits = stock(input_ids=ids, use_cache=False).logits[0, :-1]
        every = logits.float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        sampled = torch.tensor(row["mask"], device=device) == 1
        logp = every[len(row["prompt_tokens"]) - 1 :][sampled]
        (loss_of(logp, [row]) * len(logp) / total).backward()
        parts.append(logp.detach())

    return torch.cat(parts), gradients(stock)


def in_order_of_bins(rows: list[Row]) -> list[Row]:
    """Return rows by rising length, as they lie in a bin, so that neighbours of equal length go through one call."""
    return sorted(rows, key=lambda row: len(row["prompt_tokens"]) + len(row["tokens"]))


# ---------------------------------------------------------------- errors


def rms(tensor: torch.Tensor) -> float:
    """Return the root of the mean square."""
    return tensor.double().square().mean().sqrt().item()


def gradient_error(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of all gradients, relative to the norm of the true ones."""
    difference = sum((ours[name] - truth[name]).double().square().sum() for name in truth)
    whole = sum(gradient.double().square().sum() for gradient in truth.values())
    return float((difference / whole) ** 0.5)


def worst_gradient_error(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of one parameter's gradient, relative to the true gradients' typical norm."""
    typical = max(gradient.norm().item() for gradient in truth.values())
    return max((ours[name] - truth[name]).norm().item() / typical for name in truth)


# ---------------------------------------------------------------- models


def check_models(bench: Bench) -> None:
    """Check each family, tied and untied, in fp32 and in bf16."""
    longest = 120 if bench.shape == "tiny" else 1500
    rows = in_order_of_bins(make_rows(8, 1024, longest // 3, longest, holes=True))

    for family in FAMILIES:
        for tied in (True, False):
            name = f"{family}, {'tied' if tied else 'untied'}"
            check_model(bench, name, small_config(family, tied), rows)


def check_large(bench: Bench) -> None:
    """Check the shape of Qwen2.5-1.5B, whose head and lengths are those of real work."""
    if bench.shape == "full" and bench.has_time(60, "qwen2.5-1.5b"):
        config = LARGE["qwen2.5-1.5b"]
        rows = in_order_of_bins(make_rows(6, config.vocab_size, 500, 2000))
        check_model(bench, "qwen2.5-1.5b", config, rows)


def check_model(bench: Bench, name: str, config: Any, rows: list[Row]) -> None:
    """Check the packed path of a model against one row at a time."""
    device = bench.device
    _, folder = save_checkpoint(bench.scratch / name.replace(", ", "-"), config, device)
    stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    stock = stock.to(device)
    truth_logp, truth_gradients = one_at_a_time(stock, rows, device)
    round_weights(stock, torch.bfloat16)
    stock_logp, stock_gradients = one_at_a_time(stock, rows, device)
    del stock

    policy = load_policy(folder, "float32").to(device)
    logp, grads = packed(policy, rows, device)
    check = bench.results.check
    check(f"{name}: log-probs, fp32", (logp - truth_logp).abs().max().item(), FP32_LOGPS, FP32_LOGPS_REASON)
    check(
        f"{name}: gradients, fp32", worst_gradient_error(grads, truth_gradients), FP32_GRADIENTS, FP32_GRADIENTS_REASON
    )

    used: set[str] = set()
    round_weights(policy, torch.bfloat16)
    with watched_attention(used):
        logp, grads = packed(policy, rows, device)
    bound = TIMES * rms(stock_logp - truth_logp) + FLOOR
    check(f"{name}: log-probs, bf16", rms(logp - truth_logp), bound, BF16_REASON)
    bound = TIMES * gradient_error(stock_gradients, truth_gradients) + FLOOR
    check(f"{name}: gradients, bf16", gradient_error(grads, truth_gradients), bound, BF16_REASON)

    expected = "varlen" if device == "cuda" else "loop"
    reason = f"bf16 must go through {expected} attention on this device"
    check(f"{name}: attention path", float(used != {expected}), 0, reason)


class watched_attention:
    """Notes which of the two ways packed attention takes."""

    def __init__(self, used: set[str]):
        self.used = used

    def __enter__(self):
        self.real = attention.varlen_attn, attention._by_segment

        def noting(way: str, function: Callable) -> Callable:
            def noted(*arguments: Any, **options: Any) -> Any:
                self.used.add(way)
                return function(*arguments, **options)

            return noted

        attention.varlen_attn = noting("varlen", self.real[0])
        attention._by_segment = noting("loop", self.real[1])

    def __exit__(self, *_):
        attention.varlen_attn, attention._by_segment = self.real


# ---------------------------------------------------------------- attention and head alone


def eager_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Return causal attention within segments, [1, T, H, D], by the definition: one mask over all of them."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(query.device)
    allowed = (owner[:, None] == owner) & torch.ones(len(owner), len(owner), device=query.device).tril().bool()

    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    weights = scores.float().masked_fill(~allowed, -torch.inf).softmax(-1).to(value.dtype)
    return (weights @ value).transpose(1, 2)


def check_attention(bench: Bench) -> None:
    """Check production's attention, and the loop, against the definition, with gradients, in bf16."""
    lengths = [1, 7, 7, 30, 61] if bench.shape == "tiny" else [1, 7, 64, 64, 129, 500, 1283]
    ends = torch.tensor([0, *lengths], device=bench.device).cumsum(0).to(torch.int32)

    def production(query, key, value):
        scale = query.shape[-1] ** -0.5
        output, _ = attention.segment_attention(torch.nn.Module(), query, key, value, None, scale, 0.0, lengths, ends)
        return output

    def loop(query, key, value):
        return attention._by_segment(query, key, value, query.shape[-1] ** -0.5, lengths)

    def eager(query, key, value):
        return eager_attention(query, key, value, lengths)

    for heads, keys, width in ((4, 4, 64), (12, 2, 128)):
        generator = torch.Generator().manual_seed(0)
        shapes = ((heads, width), (keys, width), (keys, width))
        inputs = [torch.randn(1, n, sum(lengths), d, generator=generator).to(bench.device) for n, d in shapes]
        pull = torch.randn(1, sum(lengths), heads, width, generator=generator).to(bench.device)
        # The reference gets the rounded inputs, so that only the arithmetic differs.
        inputs = [tensor.bfloat16() for tensor in inputs]
        truth = differentiated(eager, [tensor.float() for tensor in inputs], pull)
        stock = differentiated(eager, inputs, pull)

        for name, function in (("production", production), ("loop", loop)):
            ours = differentiated(function, inputs, pull)
            for part, mine, theirs, right in zip(("output", "dq", "dk", "dv"), ours, stock, truth):
                bench.results.check(
                    f"attention {heads}/{keys} heads × {width}: {name}, {part}",
                    rms(mine.float() - right),
                    2 * rms(theirs.float() - right) + FLOOR,
                    "twice the error of eager attention in bf16, against fp32 (the rule of FlashAttention's own tests)",
                )


def differentiated(function: Callable, inputs: list[torch.Tensor], pull: torch.Tensor) -> list[torch.Tensor]:
    """Return a function's output and the gradients of its inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    output.backward(pull.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[misc]


def check_head(bench: Bench) -> None:
    """Check the chunked head against full logits, when logits are kept and when they are computed again."""
    tokens, width, vocabulary = (200, 64, 3000) if bench.shape == "tiny" else (2048, 1536, 151936)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to(bench.device)
    weight = (torch.randn(vocabulary, width, generator=generator) * 3 * width**-0.5).to(bench.device)
    targets = torch.randint(vocabulary, (tokens,), generator=generator).to(bench.device)
    pull = torch.randn(tokens, generator=generator).to(bench.device)

    def full(hidden, weight):
        logits = linear(hidden, weight).float() / 0.8
        return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    def chunked(hidden, weight):
        return logps.TokenLogps.apply(hidden, weight, None, targets, logps.Logits(temperature=0.8))

    truth = differentiated(full, [hidden, weight], pull)
    stock = differentiated(full, [hidden.bfloat16(), weight.bfloat16()], pull)

    for kept in (0, logps.KEPT[bench.device]):
        how = "kept" if kept else "computed again"
        saved = logps.CHUNK, logps.KEPT
        logps.CHUNK = {bench.device: 4 * vocabulary * (tokens // 5)}
        logps.KEPT = {bench.device: kept}
        try:
            exact = differentiated(chunked, [hidden, weight], pull)
            low = differentiated(chunked, [hidden.bfloat16(), weight.bfloat16()], pull)
        finally:
            logps.CHUNK, logps.KEPT = saved

        for part, mine, rounded, theirs, right in zip(("log-probs", "dh", "dW"), exact, low, stock, truth):
            scale = rms(right)
            bench.results.check(
                f"head, logits {how}: {part}, fp32",
                rms(mine - right) / scale,
                1e-5,
                "relative rms; fp32 sums in another order",
            )
            bench.results.check(
                f"head, logits {how}: {part}, bf16",
                rms(rounded.float() - right) / scale,
                TIMES * rms(theirs.float() - right) / scale + FLOOR,
                f"relative rms; {TIMES} times the error of full logits in bf16, against fp32",
            )
