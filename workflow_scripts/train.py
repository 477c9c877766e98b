"""Train a checkpoint on a round's data (or on the cold start's) and publish the next one.

State is saved in a scratch folder keyed by a digest of all inputs and settings; a run that was cut off goes on from
there. The finished model is put in place with one rename, its checkpoint.json is written last, the state deleted.
On several GPUs: `torchrun --nproc-per-node N -m workflow_scripts.train …`
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
from workflow_scripts.training.tracking import tracked
from workflow_scripts.training.trainer import RoundTrainer, fit, history

MOMENTS = "moments.pt"  # of the optimizer, beside checkpoint.json


def check_passport(path: str, data: str, checkpoint: str, settings: Train) -> dict:
    """The sampling settings in the passport of a log-prob file, if it was made for this model, data and tokenizer
    and in this training's arithmetic; else BadInput."""
    passport, scored = read_json(manifest_of(path))["passport"], read_json(checkpoint)
    expected = {
        "model": scored["digest"],
        "tokenizer": scored["tokenizer"],
        "data": file_digest(data),
        "dtype": settings.dtype,
    }
    for name, value in expected.items():
        if passport[name] != value:
            mend = "give logp and train one dtype" if name == "dtype" else "delete the file and run again"
            raise BadInput(
                f"{path}: these log-probs were made for another {name} ({passport[name][:16]}, training has "
                f"{value[:16]}); {mend}"
            )
    sampling = passport["sampling"]
    if settings.needs_behaviour and (sampling["top_p"] < 1 or sampling["top_k"]):
        raise BadInput(
            f"{path}: the answers were sampled with top_p {sampling['top_p']} and top_k {sampling['top_k']}, but "
            f"log-probs are of the full distribution, so the ratios of `{settings.objective}` would be biased; "
            "sample at top_p 1 and top_k 0, or train with `sft`"
        )
    return sampling


def join(rows: list[dict], name: str, files: list[str], data: str, checkpoint: str, settings: Train) -> float:
    """Give each row its stored log-probs (by qid) as `name`; the temperature that they are of."""
    samplings, logps = [check_passport(path, data, checkpoint, settings) for path in files], {}
    for path in files:
        logps |= read_pickle(path)
    for row in rows:
        if row["qid"] not in logps:
            raise BadInput(f"{', '.join(files)}: no log-probs for {row['qid']} of {data}")
        row[name] = logps[row["qid"]]
        if len(row[name]) != sum(row["mask"]):
            raise BadInput(f"log-probs of {row['qid']}: {len(row[name])} values for {sum(row['mask'])} sampled tokens")
    return samplings[0]["temperature"]


def usable(rows: list[dict], longest: int) -> tuple[list[dict], Counter]:
    """Rows that can be trained on, and counts of those that cannot, by reason. A pair goes or stays whole."""
    reasons = {}
    for number, row in enumerate(rows):
        if len(row["prompt_tokens"]) + len(row["tokens"]) > longest:
            reasons[row.get("pair", number)] = f"longer than max_length {longest}"
        elif not any(row["mask"]):
            reasons[row.get("pair", number)] = "no sampled tokens"
    found = [(row, reasons.get(row.get("pair", number))) for number, row in enumerate(rows)]
    return [row for row, reason in found if not reason], Counter(reason for _, reason in found if reason)


def read_rows(args, settings: Train) -> tuple[list[dict], Counter, float]:
    """The rows to train on, with their stored log-probs; rejects by reason; the temperature of the log-probs."""
    objective, start = settings.objective, policy_digest(args.model)
    rows, rejects = usable(list(read_records(args.data)), settings.max_length)
    say("rejected: " + ("; ".join(f"{n} × {reason}" for reason, n in rejects.items()) or "nothing"))
    if not rows:
        raise BadInput(f"{args.data}: no row can be trained on: {dict(rejects)}")
    wanted = {
        "--logp": (settings.needs_behaviour, args.logp),
        "--ref-logp": (settings.needs_reference, args.ref_logp),
    }
    for flag, (needed, files) in wanted.items():
        if needed and not files:
            raise BadInput(f"{flag}: the objective {objective} needs stored log-probs; score the data first")
    if objective == "dpo" and (alone := [row["qid"] for row in rows if row.get("pair") is None]):
        raise BadInput(f"{args.data}: dpo learns from preference pairs, but row {alone[0]} belongs to none")
    temperature = 1.0
    for row in rows:
        row["foreign"] = row["policy"] != start and settings.foreign_ratio == "one"
    if args.logp:
        temperature = join(rows, "behaviour", args.logp, args.data, args.model, settings)
    if args.ref_logp:
        temperature = join(rows, "reference", args.ref_logp, args.data, args.reference, settings)
    return rows, rejects, temperature


def say_ratios(rows: list[dict], settings: Train, start: str) -> int:
    """Whose words the rows are; the number that others wrote."""
    others = sum(row["policy"] != start for row in rows)
    if settings.needs_behaviour and others:
        ratio = "1" if settings.foreign_ratio == "one" else "proximal: against the checkpoint training starts from"
        say(f"{others} of {len(rows)} rows were not sampled by this policy: their ratio is {ratio}")
    return others


def moments_before(args, settings: Train) -> str | None:
    """The optimizer's moments of the round before, if this one carries them on and there was one."""
    if settings.optimizer == "fresh" or args.round < 2:
        return None
    path = Path(args.model).with_name(MOMENTS)
    if read_json(args.model).get("moments") != (file_digest(path) if path.exists() else ""):
        raise BadInput(
            f"{path}: not the moments that {args.model} was published with, so `optimizer: carry` cannot go on from "
            "them; train that round with `optimizer: carry`, or this one with fresh"
        )
    return str(path)


def publish_round(output: str, trainer: RoundTrainer, weights: dict | None, tokenizer, fields: dict) -> dict:
    """The model, its history and (for the next round) the optimizer's moments; the manifest."""

    def save(folder: Path) -> None:
        trainer.model.config.use_cache = True
        trainer.model.save_pretrained(folder, **({"state_dict": weights} if weights else {}))
        tokenizer.save_pretrained(folder)

    fields |= {"updates": trainer.state.global_step}
    fields |= {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
    if trainer.stopped:
        fields |= {"stopped": trainer.stopped}
    write_json(Path(output).with_name("history.json"), history(trainer))
    if trainer.settings.optimizer == "carry":
        path = Path(output).with_name(MOMENTS)
        torch.save(trainer.optimizer.state_dict()["state"], path)
        fields |= {"moments": file_digest(path)}
    return publish(output, save, fields)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, help="training data (.pkl)")
    parser.add_argument("--logp", nargs="*", default=[], help="log-prob files of the data, all shards")
    parser.add_argument("--model", required=True, help="checkpoint.json to start from")
    parser.add_argument("--reference", help="checkpoint.json of the reference, where the objective has one")
    parser.add_argument("--ref-logp", nargs="*", default=[], help="log-prob files under the reference, all shards")
    parser.add_argument("--settings", required=True, help=settings_help("train"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--round", type=int, default=0, help="recorded in checkpoint.json")
    parser.add_argument("--rounds", type=int, default=1, help="that a schedule over all rounds counts on")
    parser.add_argument("--state", required=True, help="folder for the saved states of unfinished runs")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()
    started = time.time()
    settings = Train.model_validate_json(args.settings)
    torch.set_num_threads(settings.threads)
    start = policy_digest(args.model)
    rows, rejects, temperature = read_rows(args, settings)
    others = say_ratios(rows, settings, start)
    moments = moments_before(args, settings)
    carried = [moments] if moments else []

    inputs = {path: content_digest(path) for path in [args.model, args.data, *args.logp, *args.ref_logp, *carried]}
    where = [args.round, args.rounds if settings.schedule_over == "rounds" else 1]
    values = settings.model_dump(mode="json")
    work = digest([inputs, values, args.seed, where, code_digests("workflow_scripts.train")])
    state = Path(args.state) / work
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    place = {"round": args.round, "rounds": args.rounds} if settings.schedule_over == "rounds" else {}
    with tracked(args, settings, work) as report:
        trainer = fit(
            model_folder(args.model), rows, settings, temperature=temperature, seed=args.seed, state=str(state),
            pad=pad, moments=moments, report=report, **place,
        )  # fmt: skip
    weights = trainer.full_state()  # every rank takes part
    if trainer.is_world_process_zero():
        fields = {
            "round": args.round,
            "inputs": inputs,
            "settings": values | {"seed": args.seed},
            "start": start,
            "rows": len(rows),
            "rejects": dict(rejects),
            "foreign": others,
        }
        manifest = publish_round(args.output, trainer, weights, tokenizer, fields)
        write_usage(args.output, seconds=time.time() - started, processes=trainer.args.world_size)
        shutil.rmtree(state, ignore_errors=True)
        print(f"round {args.round}: {manifest['updates']} updates on {len(rows)} rows, policy {manifest['digest']}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # leaves the process group


if __name__ == "__main__":
    run(main)
