"""Freeze the prompts of a run: read or make them, validate them, and keep them as Parquet files, one per split.

Rows without a question or an answer, repeated questions and train questions that are also eval questions go to
rejects.jsonl with a reason each.
"""

from collections import Counter
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core import shards
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, conserve, normalise, read_records, write_jsonl, write_parquet
from workflow_scripts.core.sections import Prompts


def fault(record: dict, seen: set[str], ids: set[str], eval_texts: set[str]) -> str | None:
    """Why a record cannot be used, or None; a task may have found out already."""
    if record.get("fault"):
        return record["fault"]
    for key in ("question", "answer", "id", "level"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            return f"no {key}"
    text = normalise(record["question"])
    if text in seen:
        return "the question occurs before"
    if record["id"] in ids:
        return f"the id {record['id']} occurs before"
    if text in eval_texts:
        return "the question is also an eval question"
    return None


def validate(records: list[dict], split: str, eval_texts: set[str]) -> tuple[list[dict], list[dict]]:
    """(good records, rejects with `split`, `record` (its number in the file, from 1) and `reason`)."""
    good, rejects, seen, ids = [], [], set(), set()
    for number, record in enumerate(records, 1):
        if reason := fault(record, seen, ids, eval_texts):
            kept = {key: value for key, value in record.items() if key != "fault"}
            rejects.append(kept | {"split": split, "record": number, "reason": reason})
            continue
        seen.add(normalise(record["question"]))
        ids.add(record["id"])
        good.append(record)
    conserve(f"freeze_prompts ({split})", len(records), len(good), len(rejects))
    return good, rejects


def check_edited(path: str, split: str, eval_path: str, records: list[dict]) -> None:
    """Frozen prompts may be edited by hand, but not into something that cannot be used; else BadInput."""
    eval_texts = set()
    if split != "eval" and Path(eval_path).exists():
        eval_texts = {normalise(str(record.get("question"))) for record in read_records(eval_path)}
    seen, ids = set(), set()
    for number, record in enumerate(records):
        if reason := fault(record, seen, ids, eval_texts):
            raise BadInput(f"{path}, row {number} (id {record.get('id')}): {reason}")
        seen.add(normalise(record["question"]))
        ids.add(record["id"])


def frozen(task, settings: dict, seed: int) -> tuple[dict[str, list[dict]], list[dict]]:
    """({split: records}, rejects): what the settings' sources hold, validated; eval before train."""
    splits, rejects, eval_texts = {}, [], set()
    for name in [name for name in ("eval", "train", "pool") if settings[name]]:
        records = list(task.read_prompts(settings[name], settings, name, seed))
        splits[name], bad = validate(records, name, eval_texts)
        rejects += bad
        if not splits[name]:
            source = settings[name]["file"] or "what the task makes up"
            found = f"none of {len(records)} records can be used: {reasons(bad)}" if records else "there are no records"
            raise BadInput(f"prompts.{name}: {source}: {found}")
        eval_texts = {normalise(record["question"]) for record in splits[name]}
    return splits, rejects


def freeze(task, settings: dict, seed: int, output: Path) -> None:
    """Write {train or pool,eval}.parquet with their manifests, and rejects.jsonl, into `output`."""
    splits, rejects = frozen(task, settings, seed)
    write_jsonl(output / "rejects.jsonl", rejects)
    for name, records in splits.items():
        bad, path = [reject for reject in rejects if reject["split"] == name], output / f"{name}.parquet"
        say(f"{name}: {len(records)} prompts, {len(bad)} rejects{f' ({reasons(bad)})' if bad else ''}")
        write_parquet(path, records)
        sources = [settings[name]["file"]] if settings[name]["file"] else []
        write_manifest(path, sources, settings | {"seed": seed}, rows=len(records))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--settings", required=True, help=settings_help("prompts"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--shards", type=int, required=True, help="number of digest files per split")
    parser.add_argument("--output", required=True, help="folder for train.parquet, eval.parquet and shards/")
    args = parser.parse_args()
    output = Path(args.output)
    settings = Prompts.model_validate_json(args.settings).model_dump(mode="json")
    freeze(tasks.load(args.task), settings, args.seed, output)
    for name in [name for name in ("train", "pool", "eval") if settings[name]]:
        shards.sync(output / "shards" / name, args.shards, output / f"{name}.parquet")


def reasons(rejects: list[dict]) -> str:
    counts = Counter(reject["reason"] for reject in rejects)
    return "; ".join(f"{count} × {reason}" for reason, count in counts.most_common(5))


if __name__ == "__main__":
    run(main)
