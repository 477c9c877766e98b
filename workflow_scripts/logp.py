"""Score a round's training data under a checkpoint, the one that training starts from or the reference: one shard.

Writes {qid: float32 array, one value per sampled token} and beside it the passport: the digests of model, data and
tokenizer, dtype and sampling settings. Training refuses log-probs whose passport does not match.
"""

import time

import numpy as np
import torch

from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.cli import arguments, run, say, shard
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.copies import Copies
from workflow_scripts.core.ledger import Ledger, map_records
from workflow_scripts.core.manifest import file_digest, write_manifest, write_usage
from workflow_scripts.core.records import conserve, read_json, read_records, shard_of, write_pickle
from workflow_scripts.core.sections import Logp
from workflow_scripts.training import bins
from workflow_scripts.training.logps import load_policy, sampled_logps


@torch.no_grad()
def score(model, rows: list[dict], temperature: float) -> list[list[float]]:
    """Log-probs of each row's sampled tokens; the rows make up one bin."""
    inputs = bins.collate(rows, pad=0)
    inputs |= {name: value.to(model.device) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    flat = sampled_logps(model, inputs, temperature).cpu()
    return [part.tolist() for part in flat.split([sum(row["mask"]) for row in rows])]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, help="a round's training data (.pkl)")
    parser.add_argument("--model", required=True, help="checkpoint.json to score under")
    parser.add_argument("--temperature", type=float, default=1.0, help="the one that the answers were sampled at")
    parser.add_argument("--top-p", type=float, default=1.0, help="the answers' nucleus, for the passport")
    parser.add_argument("--top-k", type=int, default=0, help="the answers' top-k, for the passport")
    parser.add_argument("--settings", default="{}", help=settings_help("logp"))
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--ledger", help="folder of finished rows; beside the output by default")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    started = time.time()
    settings = Logp.model_validate_json(args.settings).model_dump(mode="json")
    torch.set_num_threads(settings["threads"])
    shards, rank = map(int, args.shard.split("_"))
    rows = [row | {"uid": row["qid"]} for row in read_records(args.data) if shard_of(row["qid"], shards) == rank]

    copies = Copies(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_policy(model_folder(args.model), "float32").eval().to(device)
    lengths = [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]
    policy = policy_digest(args.model)
    common = [policy, args.temperature, settings["dtype"], torch.__version__]
    code = code_digests("workflow_scripts.logp")
    # bf16 is autocast over fp32 weights, as in training, so that the ratio at its first update is 1
    with torch.autocast(device, torch.bfloat16, enabled=settings["dtype"] == "bfloat16"):
        values = map_records(
            rows,
            lambda row: [common, code, row["uid"], row["prompt_tokens"], row["tokens"], row["mask"]],
            lambda batch: score(model, batch, args.temperature),
            Ledger(args.ledger or f"{args.output}.ledger", args.shard),
            bins.pack(range(len(rows)), lengths, settings["tokens_per_bin"]),
            f"logp {args.shard}",
            copies,
        )
    conserve("logp", len(rows), len(values), 0)
    write_pickle(args.output, {row["uid"]: np.asarray(v, dtype=np.float32) for row, v in zip(rows, values)})
    passport = {
        "model": policy,
        "tokenizer": read_json(args.model)["tokenizer"],
        "data": file_digest(args.data),
        "dtype": settings["dtype"],
        "sampling": {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k},
    }
    write_manifest(args.output, [args.data, args.model], settings, rows=len(rows), passport=passport)
    write_usage(args.output, seconds=time.time() - started, tokens=sum(lengths))
    say(f"{args.output}: {len(rows)} rows, {sum(lengths)} tokens in {time.time() - started:.1f} s")


if __name__ == "__main__":
    run(main)
