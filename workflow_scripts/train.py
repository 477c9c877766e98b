"""Train a checkpoint on a round's data (or on the cold start's) and publish the next one.

State is saved in a scratch folder keyed by a digest of all inputs and settings, and a run that was cut off goes on from
there. The finished model is put in place with one rename, its checkpoint.json is written last, and the state is
deleted. On several GPUs: `torchrun --nproc-per-node N -m workflow_scripts.train …`
"""

import argparse
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Train, settings_of
from workflow_scripts.core.checkpoint import (
    DIVIDED_MOMENTS,
    ENGINE,
    MOMENTS,
    describe,
    model_folder,
    moments_beside,
    policy_digest,
    publish,
    remove,
)
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.manifest import content_digest, write_usage
from workflow_scripts.publishing.weights import publish_weights
from workflow_scripts.training import objectives, processes, states
from workflow_scripts.training.publishing import write_divided
from workflow_scripts.training.rows import StoredLogps, TrainingRows, read_rows
from workflow_scripts.training.tracking import tracked
from workflow_scripts.training.trainer import RoundTrainer, fit, history

HOW_IT_RUNS = ("processes", "nodes", "save_steps")  # settings with which an unfinished training may go on differently


def moments_before(model: str, round: int, settings: Train) -> str | None:
    """Return the optimizer's moments of the round before, if this round carries them on and there is one."""
    if settings.optimizer == "fresh" or round < 2:
        return None

    path = moments_beside(model)
    if read_json(model).get("moments") != (content_digest(path) if path.exists() else ""):
        raise BadInput(
            f"{path}: these are not the moments that {model} was published with, so `optimizer: carry` cannot go on "
            "from them; train that round with `optimizer: carry`, or this one with fresh"
        )

    return str(path)


# ---------------------------------------------------------------- publication


def final_model(trainer: RoundTrainer, start_folder: str) -> Any:
    """Return the trained model, with adapters added to its weights.

    If the weights were held in 4 bits, the adapters are added to the full weights that training started from.
    """
    lora = trainer.settings.lora
    if lora is None:
        return trainer.model
    if not lora.bits:
        return trainer.adapters.merge_and_unload()

    from workflow_scripts.training.adapters import move_adapters

    return move_adapters(trainer.adapters, start_folder, lora).merge_and_unload()


def publish_moments(output: str, trainer: RoundTrainer) -> None:
    """Write the optimizer's moments for the next round. All ranks must call this."""
    file = Path(output).with_name(MOMENTS)
    folder = Path(output).with_name(DIVIDED_MOMENTS)
    fresh = folder.with_name(f".{folder.name}.new")
    file.parent.mkdir(parents=True, exist_ok=True)

    if not trainer.is_divided:
        if trainer.is_world_process_zero():
            remove(folder)
            torch.save(trainer.own_optimizer().state_dict()["state"], file)
        return

    if trainer.is_world_process_zero():
        remove(fresh)
    trainer.accelerator.wait_for_everyone()
    states.save_moments(fresh, trainer.model, trainer.own_optimizer())
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        remove(file)
        remove(folder)
        os.replace(fresh, folder)


def publish_round(
    output: str, trainer: RoundTrainer, tokenizer, fields: dict[str, Any], start_folder: str, dtype: str | None
) -> dict[str, Any]:
    """Write the model and its history, and the weights in `dtype` for engines; return the manifest.

    If the weights are divided over ranks, the other ranks must call `write_divided` meanwhile.
    """

    for_engines = Path(output).with_name(ENGINE)

    def save(folder: Path) -> None:
        remove(for_engines)  # before the model changes
        model: Any = trainer.model
        model.config.use_cache = True
        if trainer.is_divided:
            write_divided(folder, model)
        else:
            final_model(trainer, start_folder).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    fields = fields | {
        "updates": trainer.state.global_step,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if trainer.stopped:
        fields["stopped"] = trainer.stopped

    write_json(Path(output).with_name("history.json"), history(trainer))
    if trainer.settings.optimizer == "carry":
        fields["moments"] = content_digest(moments_beside(output))

    manifest = publish(output, save, fields)
    if dtype is None:
        return manifest

    publish_weights(Path(output).with_name("model"), for_engines)
    manifest["engine"] = {"dtype": dtype, "digest": content_digest(for_engines)}
    write_json(output, manifest)
    return manifest


def is_published(record: Path, output: str) -> bool:
    """Return whether the model beside `output` is the result of this very work, although checkpoint.json is gone."""
    model = Path(output).with_name("model")
    if not record.exists() or not model.is_dir():
        return False

    manifest = read_json(record)
    moments = moments_beside(output)
    has_moments = "moments" not in manifest or (moments.exists() and content_digest(moments) == manifest["moments"])
    return has_moments and describe(model)["files"] == manifest["files"]


def lock_states(folder: str):
    """Lock a round's saved states until this process ends. Raise BadInput if another process works on them."""
    if int(os.environ.get("RANK", 0)):
        return None

    Path(folder).mkdir(parents=True, exist_ok=True)
    file = open(Path(folder) / "lock", "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise BadInput(
            f"{folder}: another process is training this round ({file.read().strip()}); end it, or wait for its end"
        ) from None
    except OSError as error:  # a file system without locks
        say(f"{folder} cannot be locked ({error.strerror})")

    file.truncate(0)
    print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
    return file


# ---------------------------------------------------------------- the stage


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--data", required=True, help="training data (.pkl)")
    parser.add_argument("--logp", nargs="*", default=[], help="log-prob files of the data, all shards")
    parser.add_argument("--model", required=True, help="checkpoint.json to start from")
    parser.add_argument("--reference", help="checkpoint.json of the reference, if the objective has one")
    parser.add_argument("--ref-logp", nargs="*", default=[], help="log-prob files under the reference, all shards")
    parser.add_argument("--answers", nargs="*", default=[], help="the round's answers, to compare their engine")
    parser.add_argument("--settings", required=True, help=settings_help("train"))
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--round", type=int, default=0, help="number of the round, recorded in checkpoint.json")
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds that a schedule over all rounds has")
    parser.add_argument("--state", required=True, help="folder for the saved states of unfinished runs")
    parser.add_argument("--curves", type=Path, help="folder for the curves (default: none are kept)")
    parser.add_argument(
        "--engine-weights", choices=["bfloat16"], help="write the weights in this type too, for engines"
    )
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    started = time.time()
    settings = Train.model_validate_json(args.settings)
    torch.set_num_threads(settings.threads)
    if processes.count() > 1:
        processes.join()

    behaviour, reference = StoredLogps(args.logp, args.model), StoredLogps(args.ref_logp, args.reference)
    data = read_rows(args.data, settings, behaviour, reference, args.answers)
    moments = moments_before(args.model, args.round, settings)
    inputs = [args.model, args.data, *args.logp, *args.ref_logp, *args.answers, *([moments] if moments else [])]
    digests = {path: content_digest(path) for path in inputs}

    work = work_digest(args, settings, digests)
    lock = lock_states(args.state)
    published = Path(args.state) / f"{work}.json"
    if processes.from_first(lambda: is_published(published, args.output)):
        say(f"round {args.round}: is trained already, by a run whose end was not recorded")
        if lock:
            write_json(args.output, read_json(published))
        return

    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    trainer = train(args, settings, data, work, tokenizer, moments)
    if settings.optimizer == "carry":
        publish_moments(args.output, trainer)
    if trainer.is_world_process_zero():
        fields = {
            "round": args.round,
            "inputs": digests,
            "settings": settings.model_dump(mode="json") | {"seed": args.seed},
            "start": policy_digest(args.model),
            "rows": len(data.rows),
            "rejects": dict(data.rejects),
            "foreign": data.foreign,
        }
        if data.stale:
            fields["stale"] = data.stale
        if data.mismatch:
            fields["mismatch"] = data.mismatch
        manifest = publish_round(args.output, trainer, tokenizer, fields, model_folder(args.model), args.engine_weights)
        write_json(published, manifest)
        seconds = time.time() - started
        used = {"processes": trainer.args.world_size, "memory": trainer.memory.report()}
        write_usage(args.output, seconds=seconds, code=args.code, **used)
        remove_states(Path(args.state), published)
        print(
            f"round {args.round}: {manifest['updates']} updates on {len(data.rows)} rows, policy {manifest['digest']}"
        )
    elif trainer.is_divided:
        write_divided(None, trainer.model)  # rank 0 gathers what this rank holds

    trainer.accelerator.wait_for_everyone()
    processes.leave()


def work_digest(args: argparse.Namespace, settings: Train, inputs: dict[str, str]) -> str:
    """Return the digest of everything that determines the trained model."""
    code = args.code or code_identity("workflow_scripts.train:main", objectives.root(settings.objective))
    place = [args.round, args.rounds if settings.schedule_over == "rounds" else 1]
    return digest([inputs, settings_of(settings, *HOW_IT_RUNS), args.seed, place, code])


def train(
    args: argparse.Namespace, settings: Train, data: TrainingRows, work: str, tokenizer, moments: str | None
) -> RoundTrainer:
    """Train from the saved state, if there is one, and return the finished trainer."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    place = {"round": args.round, "rounds": args.rounds} if settings.schedule_over == "rounds" else {}

    with tracked(args.curves, args.round, args.seed, settings, work) as report:
        return fit(
            model_folder(args.model),
            data.rows,
            settings,
            temperature=data.temperature,
            seed=args.seed,
            state=str(Path(args.state) / work),
            pad=pad,
            moments=moments,
            report=report,
            **place,
        )


def remove_states(folder: Path, published: Path) -> None:
    """Remove the saved states of this work and of work with other settings."""
    for path in set(folder.iterdir()) - {published, folder / "lock"}:
        remove(path)


if __name__ == "__main__":
    run(main)
