"""Score one shard of a round's training data under a checkpoint: the one that training starts from, or the reference.

The output is {uid: float32 array, one value per sampled token}. Beside it stands the passport: the digests of model,
data and tokenizer, the arithmetic and the sampling settings. Training refuses log-probs whose passport does not match.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Logp
from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say, shard
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.manifest import file_digest, write_manifest, write_usage
from workflow_scripts.training import bins, processes
from workflow_scripts.training.logps import arithmetic, load_scorer, sampled_logps
from workflow_scripts.training.peaks import StageMemory


@torch.no_grad()
def score(model, rows: list[dict[str, Any]], temperature: float) -> list[list[float]]:
    """Return the log-probs of each row's sampled tokens. The rows make up one bin."""
    inputs = bins.collate(rows, pad=0)
    inputs |= {name: value.to(model.device) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    flat = sampled_logps(model, inputs, temperature).cpu()
    return [part.tolist() for part in flat.split([sum(row["mask"]) for row in rows])]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a stage that writes log-probs."""
    parser = arguments(description)
    add_code_argument(parser)
    parser.add_argument("--data", required=True, help="a round's training data (.pkl)")
    parser.add_argument("--model", required=True, help="checkpoint.json to score under")
    parser.add_argument("--temperature", type=float, default=1.0, help="temperature at which the answers were sampled")
    parser.add_argument("--top-p", type=float, default=1.0, help="top_p of the answers, for the passport")
    parser.add_argument("--top-k", type=int, default=0, help="top_k of the answers, for the passport")
    parser.add_argument("--settings", default="{}", help=settings_help("logp"))
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--ledger", help="folder of finished rows (default: beside the output)")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    return parser


def passport_of(args: argparse.Namespace, settings: Logp, data: str) -> dict[str, Any]:
    """Return what log-probs of the rows in a file are computed for."""
    return {
        "model": policy_digest(args.model),
        "tokenizer": read_json(args.model)["tokenizer"],
        "data": file_digest(data),
        "dtype": arithmetic(settings.dtype),
        "sampling": {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k},
    }


def rows_of_shard(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of this shard."""
    shards, rank = map(int, args.shard.split("_"))
    return [row for row in read_records(args.data) if shard_of(row["uid"], shards) == rank]


def score_rows(
    args: argparse.Namespace, settings: Logp, rows: list[dict[str, Any]], memory: StageMemory
) -> list[list[float]]:
    """Return the log-probs of all rows, bin by bin through the ledger. Several processes share the model and the bins.

    Only rank 0 returns; the processes of the other ranks end here.
    """
    model = load_scorer(model_folder(args.model), settings.dtype)
    memory.predict_scoring(model, rows, settings.tokens_per_bin, settings.dtype)
    code = args.code or code_identity("workflow_scripts.logp:main")
    common = [policy_digest(args.model), args.temperature, arithmetic(settings.dtype), torch.__version__, code]
    lengths = [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]

    return map_records(
        rows,
        lambda row: [common, row["uid"], row["prompt_tokens"], row["tokens"], row["mask"]],
        lambda batch: score(model, batch, args.temperature),
        Ledger(args.ledger or f"{args.output}.ledger", args.shard),
        bins.pack(range(len(rows)), lengths, settings.tokens_per_bin),
        f"logp {args.shard}",
        processes.Ranks() if processes.count() > 1 else None,
    )


def publish(
    args: argparse.Namespace, settings: Logp, rows: list[dict[str, Any]], values: list[Any], inputs: list[str],
    started: float, memory: StageMemory, **fields: Any,
) -> None:  # fmt: skip
    """Write the log-probs of all rows with their passport, and what they cost."""
    conserve("logp", len(rows), len(values), 0)
    write_pickle(args.output, {row["uid"]: np.asarray(v, dtype=np.float32) for row, v in zip(rows, values)})

    used = settings.model_dump(mode="json")
    passport = passport_of(args, settings, args.data)
    write_manifest(args.output, [args.data, args.model, *inputs], used, rows=len(rows), passport=passport, **fields)

    tokens = sum(len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows)
    seconds = time.time() - started
    write_usage(args.output, seconds=seconds, tokens=tokens, code=args.code, memory=memory.report())
    say(f"{args.output}: {len(rows)} rows, {tokens} tokens in {seconds:.1f} s")


def main() -> None:
    args = parser_of(__doc__).parse_args()
    started = time.time()
    settings = Logp.model_validate_json(args.settings)
    torch.set_num_threads(settings.threads)

    rows = rows_of_shard(args)
    memory = StageMemory("logp")
    values = score_rows(args, settings, rows, memory)
    publish(args, settings, rows, values, [], started, memory)


if __name__ == "__main__":
    run(main)
