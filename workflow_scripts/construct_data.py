"""Select a round's training data from its meta files, by the task's rule."""

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Data
from workflow_scripts.core.advantages import cut_long_answers, drop_truncated, filter_rows, penalise_truncated
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.replay import EarlierRound, replayed
from workflow_scripts.core.running.cli import add_code_argument, add_task_arguments, arguments, run, say, task_files
from workflow_scripts.core.running.manifest import write_manifest

VERSIONS = ("auto", "trigger")


def encoder(checkpoint: str):
    """Return a function (pieces) → (tokens, mask) that loads the tokenizer when it is first called."""

    @cache
    def tokenizer():
        from workflow_scripts.core.pretrained import AutoTokenizer

        return AutoTokenizer.from_pretrained(model_folder(checkpoint))

    def encode(pieces):
        from workflow_scripts.core.tokens import encode_pieces

        return encode_pieces(tokenizer(), pieces)

    return encode


def read_metas(paths: dict[str, str], expected: Sequence[str]) -> dict[str, Any]:
    """Return the meta files by version, and tell which of the expected versions are missing."""
    if not paths:
        raise BadInput("no meta file: give --auto, --trigger or both")

    for version in expected:
        if version not in paths:
            say(f"no {version} meta: the selection uses {' '.join(paths)} answers only")

    return {version: read_pickle(path) for version, path in paths.items()}


def earlier_rounds(args: argparse.Namespace) -> list[EarlierRound]:
    """Return the rounds whose rows are replayed, from `--replay` and `--replay-logp`."""
    data = [item.partition("=") for item in args.replay]
    logps = [item.partition("=") for item in args.replay_logp]
    return [
        EarlierRound(int(number), path, tuple(file for of_round, _, file in logps if of_round == number))
        for number, _, path in data
    ]


def check_rows(rows: list[dict[str, Any]], metas: dict[str, Any], paths: dict[str, str], dropped: Counter) -> None:
    """Raise BadInput if nothing is left to train on."""
    if rows:
        return

    questions = set().union(*metas.values())
    raise BadInput(
        f"nothing is left to train on: {len(questions)} questions in {', '.join(paths.values())}, dropped "
        f"{dict(dropped)}. Ask easier questions, sample more answers to each, allow longer answers "
        "(generate.auto.max_tokens), answer more prompts per round (prompts_per_round), or train the cold start longer."
    )


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--auto", help="meta file of the auto answers")
    parser.add_argument("--trigger", help="meta file of the triggered answers")
    parser.add_argument(
        "--expected", nargs="*", choices=VERSIONS, default=(), help="the config's versions; missing ones are reported"
    )
    parser.add_argument("--replay", nargs="*", default=[], help="ROUND=FILE: data of earlier rounds to replay")
    parser.add_argument("--replay-logp", nargs="*", default=[], help="ROUND=FILE: log-probs of these data, all shards")
    parser.add_argument("--model", required=True, help="checkpoint.json of the policy, for its tokenizer")
    parser.add_argument("--settings", default="{}", help=settings_help("data"))
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    settings = Data.model_validate_json(args.settings).model_dump(mode="json")
    files = task_files(args)
    paths = {version: path for version in VERSIONS if (path := getattr(args, version))}
    metas = read_metas(paths, args.expected)

    shortened = cut_long_answers(metas, settings)
    if shortened:
        say(f"{shortened} answers were cut to max_length {settings['max_length']}")
    penalised = penalise_truncated(metas, settings)
    if penalised:
        say(f"{penalised} answers were cut off: their reward is at most {settings['truncated_reward']:g}")

    selection = tasks.load(args.task, "Selection", args.task_settings, files)
    rows, dropped = selection.select(metas, settings, args.seed, encoder(args.model))
    dropped = +dropped
    rows = filter_rows(rows, settings, dropped)
    rows = drop_truncated(rows, settings, dropped)
    say("dropped: " + ("; ".join(f"{count} × {reason}" for reason, count in dropped.most_common()) or "nothing"))
    check_rows(rows, metas, paths, dropped)

    counts: dict[str, Any] = {"dropped": dict(+dropped)}
    if settings["replay"] and args.replay:
        earlier, counts["replayed"] = replayed(earlier_rounds(args), len(rows), settings["replay"], args.seed)
        say(f"replayed: {len(earlier)} rows of earlier rounds; left out: {counts['replayed']['left_out'] or 'nothing'}")
        rows += earlier

    write_pickle(args.output, rows)
    kinds = dict(sorted(Counter(row["kind"] for row in rows).items()))
    used = settings | {"task": args.task_settings, "seed": args.seed}
    inputs = [*paths.values(), *files.values()]
    inputs += [item.partition("=")[2] for item in (*args.replay, *args.replay_logp)]
    counts |= {"kinds": kinds}
    counts |= {name: count for name, count in {"shortened": shortened, "penalised": penalised}.items() if count}
    write_manifest(args.output, inputs, used, rows=len(rows), **counts)
    print(f"{Path(args.output).name}: {len(rows)} rows, {kinds}")


if __name__ == "__main__":
    run(main)
