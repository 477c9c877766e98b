"""Freeze the prompts of a run, and screen them: find train prompts that resemble eval prompts or one another.

A train prompt is *contaminated* if its words are those of an eval prompt, or if n-grams that both share cover much of
the eval prompt. It is a *duplicate* if it nearly equals an earlier train prompt. `prompts.screening` says what happens
to it: the run is refused, or a warning is printed, or the prompt is left out and listed in rejects.jsonl.
overlaps.jsonl lists all such prompts beside what they resemble.

The stages that read existing rows (`cold_start.file`, `data.source`, `rows`) look for contaminated rows in the same
way, by `screen_rows`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.sections import Prompts, Screening
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json, write_jsonl, write_parquet
from workflow_scripts.core.overlaps import Held, Overlap, near_duplicates
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import run, say
from workflow_scripts.core.running.manifest import file_digest, manifest_of
from workflow_scripts.freeze_prompts import make_prompts

SCREENED = ("train", "pool")
EQUAL_TO_EVAL = "also an eval question"  # part of the reason for which freezing rejects a prompt
REASONS = {
    "equal": "its words are those of an eval question",
    "ngrams": "it contains much of an eval question",
    "near": "it nearly equals an earlier question",
}
SHOWN = 100  # characters of a question in a message


def find(texts: dict[str, str], held: dict[str, str], screening: Screening) -> Iterator[tuple[str, Overlap]]:
    """Yield the id of each text that resembles a held-out text or an earlier one, with what it resembles.

    A contaminated text is left out of the search for duplicates if contaminated prompts are dropped.
    """
    rest = texts

    if screening.contamination and held:
        index = Held(held, screening.ngram, screening.coverage)
        contaminated = {name: overlap for name, text in texts.items() if (overlap := index.overlap(text))}
        yield from contaminated.items()
        if screening.contamination == "drop":
            rest = {name: text for name, text in texts.items() if name not in contaminated}

    if screening.duplicates:
        duplicates = near_duplicates(rest.items(), screening.similarity, screening.shingle)
        for name, overlap in zip(rest, duplicates):
            if overlap:
                yield name, overlap


def screen(task: Any, settings: Prompts, folder: Path) -> None:
    """Screen the frozen train and pool prompts in `folder`, if there are any, and do what the settings say.

    Raises:
        BadInput: if there are overlaps that the settings refuse.
    """
    if settings.screening is None:
        return

    for split in SCREENED:
        if settings.sources(split):
            screen_split(task, settings.screening, split, folder)


def screen_split(task: Any, screening: Screening, split: str, folder: Path) -> None:
    """Screen the frozen prompts of a split, and do what the settings say."""
    path = folder / f"{split}.parquet"
    prompts = {prompt["id"]: prompt for prompt in read_records(path)}
    texts = {name: str(task.key(prompt)) for name, prompt in prompts.items()}
    held = held_texts(task, folder / "eval.parquet")
    overlaps: dict[str, list[tuple[str, Overlap]]] = defaultdict(list)
    for name, overlap in find(texts, held, screening):
        overlaps["duplicates" if overlap.kind == "near" else "contamination"].append((name, overlap))

    lines = [
        described(prompts[name], overlap, (texts if overlap.kind == "near" else held)[overlap.other])
        for members in overlaps.values()
        for name, overlap in members
    ]
    write_jsonl(folder / "overlaps.jsonl", lines)

    refuse_or_warn(screening, split, folder, lines)
    leave_out(path, prompts, [line for line in lines if action_on(screening, line) == "drop"])


def held_texts(task: Any, path: Path) -> dict[str, str]:
    """Return the texts of the eval prompts by id; none if there are no eval prompts."""
    return {prompt["id"]: str(task.key(prompt)) for prompt in read_records(path)} if path.exists() else {}


def described(prompt: Any, overlap: Overlap, other: str) -> dict[str, Any]:
    """Return a prompt with the reason why it is unwanted, and with the text that it resembles."""
    resembles = {"id": overlap.other, "question": other, "share": overlap.share}
    return {**prompt, "reason": REASONS[overlap.kind], "resembles": resembles}


def action_on(screening: Screening, line: dict[str, Any]) -> str | None:
    """Return what the settings say about an overlap: refuse, warn or drop."""
    return screening.duplicates if line["reason"] == REASONS["near"] else screening.contamination


def refuse_or_warn(screening: Screening, split: str, folder: Path, lines: list[dict[str, Any]]) -> None:
    """Print how many overlaps there are for each reason, or raise BadInput if the settings refuse one."""
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_reason[line["reason"]].append(line)

    refusals = [message(split, reason, members) for reason, members in by_reason.items()
                if action_on(screening, members[0]) == "refuse"]  # fmt: skip
    if screening.contamination == "refuse" and (equal := equal_to_eval(folder, split)):
        refusals.append(f"{len(equal)} {split} prompts equal eval prompts, such as {equal[0]['id']} (rejects.jsonl)")
    if refusals:
        raise BadInput(
            f"prompts.screening: {'; '.join(refusals)}. Take them out of the {split} prompts ({folder}/overlaps.jsonl "
            "lists them), or set prompts.screening.contamination or .duplicates to drop or warn"
        )

    for reason, members in by_reason.items():
        note = "left out" if action_on(screening, members[0]) == "drop" else "kept, see overlaps.jsonl"
        say(f"warning: {message(split, reason, members)}: {note}")


def message(split: str, reason: str, members: list[dict[str, Any]]) -> str:
    """Return how many prompts of a split a reason holds for, with the clearest example."""
    clearest = max(members, key=lambda line: line["resembles"]["share"])
    other = clearest["resembles"]
    return (
        f"{len(members)} {split} prompts: {reason}, such as {clearest['id']} ({clearest['question'][:SHOWN]!r}) and "
        f"{other['id']} ({other['question'][:SHOWN]!r}), share {other['share']:.0%}"
    )


def equal_to_eval(folder: Path, split: str) -> list[dict[str, Any]]:
    """Return the prompts of a split that freezing rejected because they are eval prompts."""
    rejects = read_records(folder / "rejects.jsonl")
    return [line for line in rejects if line["split"] == split and EQUAL_TO_EVAL in line["reason"]]


def leave_out(path: Path, prompts: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """Take prompts out of a frozen file, and add them to the rejects."""
    if not lines:
        return

    dropped = {line["id"] for line in lines}
    kept = [prompt for name, prompt in prompts.items() if name not in dropped]
    rejects = [{**line, "split": path.stem} for line in lines]
    conserve("screen_prompts", len(prompts), len(kept), len(dropped))
    if not kept:
        raise BadInput(f"prompts.screening: no {path.stem} prompt is left, since all resemble others")

    write_parquet(path, kept)
    write_jsonl(path.with_name("rejects.jsonl"), [*read_records(path.with_name("rejects.jsonl")), *rejects])
    manifest = read_json(manifest_of(path))
    write_json(manifest_of(path), manifest | {"sha256": file_digest(path), "rows": len(kept)})


def check_edited(task: Any, settings: Prompts, path: str, eval_path: str, prompts: list[Any]) -> None:
    """Raise BadInput if train prompts that were edited by hand resemble others, unless the settings only warn."""
    screening = settings.screening
    if screening is None or file_digest(path) == read_json(manifest_of(path))["sha256"]:
        return

    texts = {prompt["id"]: str(task.key(prompt)) for prompt in prompts}
    held = held_texts(task, Path(eval_path))
    for name, overlap in find(texts, held, screening):
        reason = REASONS[overlap.kind]
        text = f"{path}, id {name}: {reason} (id {overlap.other}, share {overlap.share:.0%})"
        if action_on(screening, {"reason": reason}) != "warn":
            raise BadInput(f"{text}; change or delete it, or set prompts.screening to warn")
        say(f"warning: {text}")


# ---------------------------------------------------------------- rows that exist already


def add_screening_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a stage that reads existing rows."""
    parser.add_argument("--screening", help="the config's `prompts.screening` as JSON (default: rows are not screened)")
    parser.add_argument(
        "--eval-prompts", nargs="?", help="the frozen eval prompts (.parquet) that no row should be like"
    )


def avoided_prompts(args: argparse.Namespace) -> list[str]:
    """Return the eval prompts that rows are compared with, as an input for the manifest."""
    return [args.eval_prompts] if args.eval_prompts else []


def screening_used(args: argparse.Namespace) -> dict[str, Any]:
    """Return how rows are screened, as settings for the manifest; nothing if they are not."""
    return {"screening": json.loads(args.screening)} if args.screening else {}


def screen_rows(
    args: argparse.Namespace, rows: list[dict[str, Any]], rejects: list[dict[str, Any]], origin: str
) -> list[dict[str, Any]]:
    """Return the rows without those that resemble an eval prompt, which are added to the rejects with their reason.

    A row is compared by its question and by its whole text. Of a preference pair, both rows are left out.

    Raises:
        BadInput: if there are contaminated rows and the settings refuse them.
    """
    screening = Screening.model_validate_json(args.screening) if args.screening else None
    if screening is None or not screening.contamination or not args.eval_prompts:
        return rows

    held = held_texts(tasks.load(args.task, "Prompts", args.task_settings), Path(args.eval_prompts))
    index = Held(held, screening.ngram, screening.coverage)
    contaminated = {}
    for row in rows:
        whole = f"{row['prompt_text']}\n{row['answer']}"
        if overlap := index.overlap(str(row.get("question") or "")) or index.overlap(whole):
            contaminated[row["uid"]] = described_row(row, overlap, held[overlap.other])
    if not contaminated:
        return rows

    example = next(iter(contaminated.values()))
    other = example["resembles"]
    text = (
        f"{origin}: {len(contaminated)} of {len(rows)} rows resemble eval prompts, such as {example['uid']} "
        f"({example['question'][:SHOWN]!r}: {example['reason']}, {other['id']})"
    )
    if screening.contamination == "refuse":
        raise BadInput(f"{text}. Take them out, or set prompts.screening.contamination to drop or warn")

    say(f"warning: {text}: {'left out' if screening.contamination == 'drop' else 'kept'}")
    if screening.contamination == "warn":
        return rows

    pairs = {row["pair"] for row in rows if row["uid"] in contaminated and "pair" in row}
    kept = [row for row in rows if row["uid"] not in contaminated and row.get("pair") not in pairs]
    partners = [row for row in rows if row.get("pair") in pairs and row["uid"] not in contaminated]
    rejects += contaminated.values()
    rejects += [{"uid": row["uid"], "reason": "the other row of its pair resembles an eval prompt"} for row in partners]
    conserve("screening of rows", len(rows), len(kept), len(contaminated) + len(partners))
    return kept


def described_row(row: dict[str, Any], overlap: Overlap, other: str) -> dict[str, Any]:
    """Return the reject of a row, with the reason and with the eval prompt that it resembles."""
    resembles = {"id": overlap.other, "question": other, "share": overlap.share}
    question = str(row.get("question") or row["prompt_text"])
    return {"uid": row["uid"], "question": question, "reason": REASONS[overlap.kind], "resembles": resembles}


def main() -> None:
    make_prompts(__doc__, screen)


if __name__ == "__main__":
    run(main)
