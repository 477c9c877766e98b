"""Make training rows of data that exists: supervised, rewarded or preference data in the usual formats, or rows.

Sources are .jsonl, .json, .csv, .parquet and .pkl files, folders that `datasets` saved, and data sets on the hub. The
formats and their columns are listed in core/formats.py. Texts are tokenised once, here. What the assistant wrote is
trained on, and the rest is masked. Unusable records go to OUTPUT.rejects.jsonl, each with its reason.

The format `task` takes training rows in the form of a run (`data/offline_….pkl`) or of the task's original system (for
math, AutoCode's offline data). Rows of a run are kept as they are: tokens, policy and advantage. That needs the same
tokenizer. A row that lacks a field and an id that comes twice are errors.

    python -m workflow_scripts.import_data --task math --model runs/arithmetic/checkpoints/r0/checkpoint.json \\
        --settings '{"source": {"file": "pairs.jsonl", "format": "preference"}}' --output /tmp/pairs.pkl
"""

from collections import Counter
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Data
from workflow_scripts.core.advantages import advantages, filter_rows
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.formats import describe_rejects, read_rows
from workflow_scripts.core.imports import NUMBER, TOKEN_FIELDS, Encoder, require
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import conserve
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    progress,
    run,
    say,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.sources import records_of
from workflow_scripts.core.templates import render
from workflow_scripts.screen_prompts import add_screening_arguments, avoided_prompts, screen_rows, screening_used

Row = dict[str, Any]

ROW_FIELDS = {"uid": str, "prompt_text": str, "answer": str, "advantage": NUMBER} | TOKEN_FIELDS


def with_advantages(
    rows: list[Row], settings: dict[str, Any], dropped: Counter, group: str = "prompt_text", right: float | None = None
) -> list[Row]:
    """Give rewarded rows their advantage among the answers to the same prompt; drop rows that have none.

    Args:
        rows: rows with a reward.
        settings: the config section `data`.
        dropped: reason → number of rows; this function adds to it.
        group: the field by which rows answer the same prompt.
        right: the reward of a right answer, if groups of right answers are to be kept.
    """
    rewards = [row["reward"] for row in rows]
    groups = [row[group] for row in rows]
    limits = {"limit": settings["advantage_clip"], "epsilon": settings["std_epsilon"]}
    values = advantages(rewards, groups, settings["advantage"], right, **limits)

    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    without_variance = {group for group, value in zip(groups, values) if value is None}
    conserve("advantages", len(rows), len(kept), sum(value is None for value in values))

    if without_variance:
        dropped["answer in a group without variance"] = len(rows) - len(kept)
        say(f"{len(without_variance)} of {len(set(groups))} groups have no variance and are dropped")

    return kept


def read_task_rows(
    source: dict[str, Any], importer: Any, conversation: Any, tokenizer: Any, template: str
) -> list[Row]:
    """Return the rows of a source in the form of a run or of the task's original system; the latter lack advantages."""
    encoder = Encoder(tokenizer)
    rows: list[Row] = []
    numbers: dict[str, int] = {}  # of the records, by uid
    records = records_of(source)

    for number, record in enumerate(progress(records, total=None, desc="rows", unit="row"), 1):
        where = f"{source['file']}, record {number}"
        if importer.is_foreign_row(record):
            row = importer.convert_row(record, where)
            prompt_text = row["prompt_text"] or rendered(row, conversation, template, tokenizer)
            row |= {"prompt_text": prompt_text, "finish": "imported"}
            row |= encoder.encode(prompt_text, conversation.segments(row["answer"]))
        else:
            require(record, ROW_FIELDS, where, importer.known["rows"])
            encoder.check(record, record["prompt_text"], where)
            row = record

        before = numbers.setdefault(row["uid"], number)
        if before != number:
            raise BadInput(f"{where}: the id {row['uid']} is also that of record {before}; ids must be unique")
        if bool(rows) and ("advantage" in row) != ("advantage" in rows[0]):
            raise BadInput(f"{where}: is in another form than the records before; give files of one form each")
        rows.append(row)

    if not rows:
        raise BadInput(f"{source['file']}: is empty; known forms are {importer.known['rows']}")

    return rows


def rendered(row: Row, conversation: Any, template: str, tokenizer: Any) -> str:
    """Return the prompt of a row that comes without it."""
    version = "auto" if row["trigger"] == "auto" else "trigger"
    request = conversation.requests({"question": row["question"]}, version)[row["trigger"]]
    return render(template, request, tokenizer)


def weighted(rows: list[Row], settings: dict[str, Any], importer: Any, dropped: Counter) -> list[Row]:
    """Return rows of format `task` with advantages, filtered as the config says."""
    if "advantage" in rows[0]:
        say(f"{len(rows)} rows keep the advantage that they came with; data.advantage is for rows without one")
    else:
        rows = with_advantages(rows, settings, dropped, "prompt_id", importer.right)

    without_reward = next((row["uid"] for row in rows if "reward" not in row), None)
    if settings["data_filter"] != "none" and without_reward is not None:
        raise BadInput(f"data.data_filter {settings['data_filter']}: the row {without_reward} has no reward; use none")

    return filter_rows(rows, settings, dropped)


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("data"))
    add_template_argument(parser)
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    add_screening_arguments(parser)
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    settings = Data.model_validate_json(args.settings).model_dump(mode="json")
    source = settings["source"]
    if not source:
        raise BadInput("data.source: name the file and its format")

    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    importer = tasks.load(args.task, "Importer", args.task_settings, task_files(args))
    dropped: Counter[str] = Counter()
    rejects: list[dict[str, Any]] = []

    if source["format"] == "task":
        rows = read_task_rows(source, importer, conversation, tokenizer, args.template)
    else:
        rows, rejects = read_rows(source, tokenizer, args.template, conversation.segments)
    rows = screen_rows(args, rows, rejects, source["file"])
    if source["format"] == "task" and rows:
        rows = weighted(rows, settings, importer, dropped)
    if source["format"] == "rewarded":
        rows = filter_rows(with_advantages(rows, settings, dropped), settings, dropped)

    write_rejects(args.output, rejects)
    say(f"left out: {describe_rejects(rejects, dropped)}")
    if not (rows or rejects or dropped):
        raise BadInput(f"{source['file']}: has no records")
    if not rows:
        raise BadInput(f"{source['file']}: nothing is left to train on; left out: {describe_rejects(rejects, dropped)}")

    write_pickle(args.output, rows)
    local = [source["file"]] if Path(source["file"]).exists() else []
    used = settings | {"template": args.template} | screening_used(args)
    counts = {"rows": len(rows), "rejects": len(rejects), "dropped": dict(dropped)}
    policies = {row["policy"] for row in rows}
    policy = policies.pop() if len(policies) == 1 else "several"
    write_manifest(args.output, [args.model, *local, *avoided_prompts(args)], used, policy=policy, **counts)
    print(f"{Path(args.output).name}: {len(rows)} rows, {len(rejects)} rejects, {dropped.total()} dropped")


if __name__ == "__main__":
    run(main)
