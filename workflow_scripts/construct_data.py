"""Select a round's training data from its meta files by the task's rule."""

from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.advantages import filtered
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, read_pickle, read_records, write_pickle
from workflow_scripts.core.sections import Data


def encoder(checkpoint: str):
    """encode(pieces) → tokens and mask; the tokenizer is loaded only if a text has to be written anew."""
    loaded = []

    def encode(pieces):
        from workflow_scripts.core.pretrained import AutoTokenizer
        from workflow_scripts.core.tokens import encode_pieces

        if not loaded:
            loaded.append(AutoTokenizer.from_pretrained(model_folder(checkpoint)))
        return encode_pieces(loaded[0], pieces)

    return encode


def with_scores(meta: dict[str, dict], path: str) -> dict[str, dict]:
    """A meta whose answers have the score (and likelihood and label, if any) that a stage gave them, joined by uid."""
    scores = {one["uid"]: {key: one.get(key) for key in ("score", "likelihood", "label")} for one in read_records(path)}
    answers = [answer["uid"] for entry in meta.values() for answer in entry["resps"]]
    if missing := [uid for uid in answers if uid not in scores]:
        raise BadInput(f"{path}: {len(missing)} of {len(answers)} answers have no score, the first is {missing[0]}")
    return {
        question: entry | {"resps": [answer | scores[answer["uid"]] for answer in entry["resps"]]}
        for question, entry in meta.items()
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--auto", help="meta file of the auto answers")
    parser.add_argument("--trigger", help="meta file of the triggered answers")
    parser.add_argument("--scores", help="scores of the auto answers by uid (.jsonl), where a stage gives them")
    parser.add_argument("--model", required=True, help="checkpoint.json of the policy, for its tokenizer")
    parser.add_argument("--settings", default="{}", help=settings_help("data"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    settings = Data.model_validate_json(args.settings).model_dump(mode="json")
    paths = {version: path for version in ("auto", "trigger") if (path := getattr(args, version))}
    if not paths:
        raise BadInput("no meta file: give --auto, --trigger or both")
    for version in {"auto", "trigger"} - set(paths):
        say(f"no {version} meta: the selection rests on {' '.join(paths)} answers alone")
    metas = {version: read_pickle(path) for version, path in paths.items()}
    if args.scores:
        metas["auto"] = with_scores(metas["auto"], args.scores)
    rows, dropped = tasks.load(args.task).select(metas, settings, args.seed, encoder(args.model))
    rows = filtered(rows, settings, dropped)
    say("dropped: " + ("; ".join(f"{count} × {reason}" for reason, count in dropped.most_common()) or "nothing"))
    if not rows:
        questions = sum(map(len, metas.values()))
        raise BadInput(
            f"nothing is left to train on: {questions} questions in {', '.join(paths.values())}, dropped "
            f"{dict(dropped)}. Ask easier questions, sample more answers to each, give them more room "
            "(generate.auto.max_tokens), or train the cold start longer."
        )
    write_pickle(args.output, rows)
    kinds = {kind: sum(row["type"] == kind for row in rows) for kind in sorted({row["type"] for row in rows})}
    write_manifest(
        args.output,
        [*paths.values(), *([args.scores] if args.scores else [])],
        settings | {"seed": args.seed},
        rows=len(rows),
        kinds=kinds,
        dropped=dict(dropped),
    )
    print(f"{Path(args.output).name}: {len(rows)} rows, {kinds}")


if __name__ == "__main__":
    run(main)
