"""Train a checkpoint on a round's data (or on the cold start's) and publish the next one.

State is saved in a scratch folder keyed by a digest of all inputs and settings; a run that was cut off goes on from
there. The finished model is put in place with one rename, its checkpoint.json is written last, the state deleted.
"""

import shutil
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer

from workflow_scripts.core.checkpoint import model_folder, policy_digest, publish
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import Train, settings_help
from workflow_scripts.core.manifest import content_digest, file_digest, manifest_of, write_usage
from workflow_scripts.core.records import BadInput, digest, read_json, read_pickle, read_records, write_json
from workflow_scripts.training.logps import load_policy
from workflow_scripts.training.trainer import fit

RATIO_WEIGHTED = {"clip"}


def check_passport(path: str, data: str, checkpoint: dict, objective: str) -> dict:
    """The passport of a log-prob file, if it was made for this model, data and tokenizer; else BadInput."""
    passport = read_json(manifest_of(path))["passport"]
    expected = {"model": checkpoint["digest"], "tokenizer": checkpoint["tokenizer"], "data": file_digest(data)}
    for name, value in expected.items():
        if passport[name] != value:
            raise BadInput(
                f"{path}: these log-probs were made for another {name} ({passport[name][:16]}, training has "
                f"{value[:16]}); delete the file and run again"
            )
    sampling = passport["sampling"]
    if objective in RATIO_WEIGHTED and (sampling["top_p"] < 1 or sampling["top_k"]):
        raise BadInput(
            f"{path}: the answers were sampled with top_p {sampling['top_p']} and top_k {sampling['top_k']}, but "
            f"log-probs are of the full distribution, so the ratios of `{objective}` would be biased; sample at "
            "top_p 1 and top_k 0, or train with `sft`"
        )
    return passport


def join_logps(rows: list[dict], files: list[str], data: str, checkpoint: dict, objective: str) -> float:
    """Give each row its stored log-probs (by qid) and say whether a ratio may be taken; the temperature."""
    temperature, logps = 1.0, {}
    for path in files:
        temperature = check_passport(path, data, checkpoint, objective)["sampling"]["temperature"]
        logps |= read_pickle(path)
    for row in rows:
        row["foreign"] = row["policy"] != checkpoint["digest"]
        if not files:
            continue
        if row["qid"] not in logps:
            raise BadInput(f"{', '.join(files)}: no log-probs for {row['qid']} of {data}")
        row["behaviour"] = logps[row["qid"]]
        if len(row["behaviour"]) != sum(row["mask"]):
            raise BadInput(
                f"log-probs of {row['qid']}: {len(row['behaviour'])} values for {sum(row['mask'])} sampled tokens"
            )
    return temperature


def usable(rows: list[dict], longest: int) -> tuple[list[dict], Counter]:
    """Rows that can be trained on, and counts of those that cannot, by reason."""
    rejects, good = Counter(), []
    for row in rows:
        if len(row["prompt_tokens"]) + len(row["tokens"]) > longest:
            rejects[f"longer than max_length {longest}"] += 1
        elif not any(row["mask"]):
            rejects["no sampled tokens"] += 1
        else:
            good.append(row)
    return good, rejects


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, help="training data (.pkl)")
    parser.add_argument("--logp", nargs="*", default=[], help="log-prob files of the data, all shards")
    parser.add_argument("--model", required=True, help="checkpoint.json to start from")
    parser.add_argument("--settings", required=True, help=settings_help("train"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--round", type=int, default=0, help="recorded in checkpoint.json")
    parser.add_argument("--state", required=True, help="folder for the saved states of unfinished runs")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()
    started = time.time()
    settings = Train.model_validate_json(args.settings).model_dump(mode="json")
    torch.set_num_threads(settings["threads"])
    start = read_json(args.model)
    rows, rejects = usable(list(read_records(args.data)), settings["max_length"])
    say("rejected: " + ("; ".join(f"{n} × {reason}" for reason, n in rejects.items()) or "nothing"))
    if not rows:
        raise BadInput(f"{args.data}: no row can be trained on: {dict(rejects)}")
    temperature = join_logps(rows, args.logp, args.data, start, settings["objective"])
    foreign = sum(row["foreign"] for row in rows)
    if settings["objective"] in RATIO_WEIGHTED and foreign:
        say(f"{foreign} of {len(rows)} rows were not sampled by this policy: their ratio is 1")

    inputs = {str(path): content_digest(path) for path in [args.model, args.data, *args.logp]}
    work = digest([inputs, settings, args.seed, args.round, code_digests("workflow_scripts.train")])
    state = Path(args.state) / work
    model = load_policy(model_folder(args.model), "float32")  # masters: in bf16, an update of 1e-6 is lost
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    result = fit(model, rows, settings, temperature, args.seed, str(state), pad)

    def save(folder: Path) -> None:
        model.config.use_cache = True
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    fields = {
        "round": args.round,
        "inputs": inputs,
        "settings": settings | {"seed": args.seed},
        "start": policy_digest(args.model),
        "rows": result["rows"],
        "updates": result["updates"],
        "rejects": dict(rejects),
        "foreign": foreign,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    manifest = publish(args.output, save, fields)
    write_json(Path(args.output).with_name("history.json"), result["history"])
    write_usage(args.output, seconds=time.time() - started)
    shutil.rmtree(state, ignore_errors=True)
    print(f"round {args.round}: {result['updates']} updates on {result['rows']} rows, policy {manifest['digest']}")


if __name__ == "__main__":
    run(main)
