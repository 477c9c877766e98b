"""Check that a model's log-probs and gradients on packed rows are those of transformers' own forward pass.

    python -m workflow_scripts.certify --model FOLDER
    python -m workflow_scripts.certify --model FOLDER --length 3000 --output certificate.json

Three rows of random tokens go through the model twice: packed into one bin, as `logp` and `train` do it, and one at a
time through transformers' own attention and head, both in fp32. Rows longer than a sliding window show whether it is
applied. The command ends with status 1 if a check fails.

    log-probs    largest difference, and whether the largest ratio exp(difference) is 1
    rows         largest change of the other rows' log-probs when one row is changed
    gradients    |difference| / |gradient| of the first and last layers and of the embeddings
    dtype        mean difference between fp32 and `--dtype`, the arithmetic of production; no bound
"""

import math
import sys
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pretrained import AutoModelForCausalLM
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.training import processes
from workflow_scripts.training.bins import collate
from workflow_scripts.training.logps import load_policy, round_weights, sampled_logps

BOUNDS = {"log-probs": 1e-4, "rows": 1e-6, "gradients": 1e-3}

Row = dict[str, Any]


def make_rows(vocabulary: int, length: int) -> list[Row]:
    """Return three rows of random tokens, of the full length, of half of it, and of a third of it."""
    generator = torch.Generator().manual_seed(0)
    rows = []

    for size in (length, length // 2, length // 3):
        tokens = torch.randint(vocabulary, (size,), generator=generator).tolist()
        rows.append({"prompt_tokens": tokens[:1], "tokens": tokens[1:], "mask": [1] * (size - 1)})

    return rows


def packed_logps(model: Any, rows: list[Row]) -> torch.Tensor:
    """Return the log-probs [N] of all rows in one bin, as training computes them."""
    inputs = collate(rows, 0)
    inputs |= {name: value.to(model.device) for name, value in inputs.items() if torch.is_tensor(value)}
    return sampled_logps(model, inputs)


def stock_logps(model: Any, rows: list[Row]) -> torch.Tensor:
    """Return the same log-probs by transformers' forward pass, row by row."""
    parts = []
    for row in rows:
        tokens = torch.tensor([row["prompt_tokens"] + row["tokens"]], device=model.device)
        logits = model(input_ids=tokens).logits[0, :-1].float()
        parts.append(logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0])
    return torch.cat(parts)


def gradients(model: Any, logps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of the mean log-prob, by parameter, and remove them from the model."""
    logps.mean().backward()
    values = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return values


def observe_ends(model: Any) -> None:
    """Let only the embeddings and the first and the last layer have gradients, so that large models fit."""
    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    observed = {id(parameter) for layer in (layers[0], layers[-1]) for parameter in layer.parameters()}
    observed |= {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in observed)


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return |ours - theirs| / |theirs| over all parameters; infinite if their names differ."""
    if ours.keys() != theirs.keys():
        return math.inf
    difference = math.sqrt(sum((ours[name] - theirs[name]).square().sum().item() for name in theirs))
    return difference / math.sqrt(sum(value.square().sum().item() for value in theirs.values()))


def certify(folder: str, length: int, dtype: str) -> dict[str, float]:
    """Return what the checks measure on a model in a local folder.

    Raises:
        BadInput: if the model has a feature that cannot be packed.
    """
    device = processes.device()
    load_policy(folder, "float32")  # refuses a model before anything is computed
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model = model.eval().to(device)
    rows = make_rows(model.get_input_embeddings().num_embeddings, length)
    observe_ends(model)
    expected = stock_logps(model, rows)
    right = gradients(model, expected)
    expected = expected.detach()
    del model

    policy = load_policy(folder, "float32").eval().to(device)
    observe_ends(policy)
    logps = packed_logps(policy, rows)
    measured = {"log-probs": (logps - expected).abs().max().item()}
    measured["gradients"] = distance(gradients(policy, logps), right)

    with torch.no_grad():
        first = len(rows[0]["tokens"])
        changed = [rows[0] | {"tokens": rows[0]["tokens"][::-1]}, *rows[1:]]
        measured["rows"] = (packed_logps(policy, changed)[first:] - logps[first:]).abs().max().item()

        round_weights(policy, getattr(torch, dtype))
        measured[f"dtype {dtype}"] = (packed_logps(policy, rows) - expected).abs().mean().item()

    return measured


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", required=True, help="folder of a model, or a checkpoint.json")
    parser.add_argument("--length", type=int, default=256, help="tokens of the longest row")
    parser.add_argument("--dtype", default="bfloat16", help="the arithmetic of production")
    parser.add_argument("--output", type=Path, help="the .json to write")
    args = parser.parse_args()

    folder = model_folder(args.model) if args.model.endswith(".json") else args.model
    measured = certify(str(folder), args.length, args.dtype)
    failed = [name for name, bound in BOUNDS.items() if not measured[name] <= bound]

    for name, value in measured.items():
        bound = f"at most {BOUNDS[name]:g}: {'FAILED' if name in failed else 'ok'}" if name in BOUNDS else ""
        print(f"{name:16} {value:10.2e}  {bound}")
    if args.output:
        write_json(args.output, {"model": args.model, "length": args.length, "measured": measured, "failed": failed})
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run(main)
