"""Make a round's folder for publication: the model in bf16 with its card, and the training data with its own.

    snakemake --profile local round3_publish
    hf upload owner/name runs/arithmetic/published/r3/model .
    hf upload owner/name-data runs/arithmetic/published/r3/data . --repo-type dataset

Nothing is uploaded until you type these commands. The cards are generated from the manifests of the run: metrics with
intervals, data with digests and licences, objective, cost, the checkpoints that led here, and the config to repeat it.
Licences are those of the config (`publish`) and of the README.md of models and data on this machine. Those that remain
unknown are named.
"""

import json
import shutil
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Publish
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.files import write_json
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.core.running.manifest import content_digest, folder_digests
from workflow_scripts.publishing.cards import write_cards
from workflow_scripts.publishing.facts import Facts
from workflow_scripts.publishing.rows import publish_rows
from workflow_scripts.publishing.weights import publish_weights


def publish(facts: Facts, checkpoint: Path, metrics: dict[str, tuple[str, str]], folder: Path) -> dict[str, int]:
    """Write the folders `model` and `data` into a folder. Return the number of rows by split."""
    parameters = publish_weights(Path(model_folder(checkpoint)), folder / "model")
    rows = publish_rows(facts.data_files, folder / "data")
    write_cards(facts, metrics, parameters, rows, folder)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, such as runs/arithmetic")
    parser.add_argument("--task", required=True, help="name of the task: a file or folder of workflow_scripts/tasks/")
    parser.add_argument("--settings", default="{}", help=settings_help("publish"))
    parser.add_argument("--round", required=True, type=int, help="the round that is published")
    parser.add_argument("--checkpoint", required=True, type=Path, help="its checkpoint.json")
    parser.add_argument("--data", type=json.loads, default="{}", help='training data, as in {"round1": "X.pkl"}')
    parser.add_argument("--output", required=True, type=Path, help="publish.json to write; the folders go beside it")
    args = parser.parse_args()

    folder = args.output.parent
    data_files = {split: Path(path) for split, path in args.data.items()}
    facts = Facts(args.run, args.task, args.round, Publish.model_validate_json(args.settings), data_files)
    for part in ("model", "data"):
        shutil.rmtree(folder / part, ignore_errors=True)
    rows = publish(facts, args.checkpoint, tasks.part_class(args.task, "Evaluation").metrics, folder)

    inputs = [args.checkpoint, *facts.data_files.values()]
    manifest = {"inputs": {str(path): content_digest(path) for path in inputs}, "rows": rows}
    write_json(args.output, manifest | {"published": folder_digests(folder)})

    for name in facts.unknown_licences():
        say(f"the licence of {name} is unknown; name it in the config: publish: {{licences: {{{name}: …}}}}")
    say("To upload it:")
    say(f"  hf upload OWNER/NAME {folder / 'model'} .")
    if rows:
        say(f"  hf upload OWNER/NAME-data {folder / 'data'} . --repo-type dataset")


if __name__ == "__main__":
    run(main)
