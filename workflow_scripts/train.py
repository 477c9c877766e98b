"""Train a checkpoint on a round's data (or on the cold start's) and publish the next one.

State is saved in a scratch folder keyed by a digest of all inputs and settings; a run that was cut off goes on from
there. The finished model is put in place with one rename, its checkpoint.json is written last, the state deleted.
On several GPUs: `torchrun --nproc-per-node N -m workflow_scripts.train …`
"""

import fcntl
import os
import socket
import time
from pathlib import Path

import torch
import transformers

from workflow_scripts.core.checkpoint import describe, model_folder, policy_digest, publish, remove
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.manifest import content_digest, file_digest, write_usage
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import BadInput, digest, read_json, write_json
from workflow_scripts.core.sections import Train
from workflow_scripts.training.rows import read_rows, say_ratios
from workflow_scripts.training.tracking import tracked
from workflow_scripts.training.trainer import RoundTrainer, fit, history

MOMENTS = "moments.pt"  # of the optimizer, beside checkpoint.json


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


def merged(trainer: RoundTrainer, begun: str):
    """The model with its adapters added to its weights; to those it began with, where it was trained in 4 bits."""
    if not trainer.settings.lora.bits:
        return trainer.adapters.merge_and_unload()
    from workflow_scripts.training.adapters import moved

    return moved(trainer.adapters, begun, trainer.settings.lora).merge_and_unload()


def publish_round(
    output: str, trainer: RoundTrainer, weights: dict | None, tokenizer, fields: dict, begun: str
) -> dict:
    """The model, its history and (for the next round) the optimizer's moments; the manifest."""

    def save(folder: Path) -> None:
        model = merged(trainer, begun) if trainer.adapters else trainer.model
        model.config.use_cache = True
        model.save_pretrained(folder, **({"state_dict": weights} if weights else {}))
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


def is_published(record: Path, output: str) -> bool:
    """Whether the model beside `output` is what this very work made, though its checkpoint.json is gone."""
    if not record.exists() or not Path(output).with_name("model").is_dir():
        return False
    manifest, moments = read_json(record), Path(output).with_name(MOMENTS)
    whole = "moments" not in manifest or (moments.exists() and file_digest(moments) == manifest["moments"])
    return whole and describe(Path(output).with_name("model"))["files"] == manifest["files"]


def locked(folder: str):
    """A lock on a round's saved states that ends with the process; BadInput if another one works on them."""
    if int(os.environ.get("RANK", 0)):
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = open(Path(folder) / "lock", "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise BadInput(
            f"{folder}: another process trains this round still ({file.read().strip()}); end it, or await its end"
        ) from None
    except OSError as error:  # a file system without locks
        say(f"{folder} cannot be locked ({error.strerror})")
    file.truncate(0)
    print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
    return file


def read_arguments():
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
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
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
    state, lock = Path(args.state) / work, locked(args.state)
    published = Path(args.state) / f"{work}.json"
    if is_published(published, args.output):
        say(f"round {args.round}: is trained already, by a run whose end was not recorded")
        if lock:
            write_json(args.output, read_json(published))
        return
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
        manifest = publish_round(args.output, trainer, weights, tokenizer, fields, model_folder(args.model))
        write_usage(args.output, seconds=time.time() - started, processes=trainer.args.world_size)
        write_json(published, manifest)
        for other in set(Path(args.state).iterdir()) - {published, Path(args.state) / "lock"}:
            remove(other)  # this work's states, and those of other settings
        print(f"round {args.round}: {manifest['updates']} updates on {len(rows)} rows, policy {manifest['digest']}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # leaves the process group


if __name__ == "__main__":
    run(main)
