"""Collect a round's graded answers with what they are scored by: one JSON line for each, sorted by uid.

uid, prompt_id, question, answer, status
row           the row that was read from the answer, or null
is_duplicate  whether the row equals a training row
ds1           the row as an example: the line that a task model sees between `before` and `after` of each anchor's
              prompt. The prompts without it, `ds0`, are the same for all rows and lie in score_anchors/
own           the question for the row's own target, in the place of an anchor's: {after, reference}, and the target
              as it stands
"""

from pathlib import Path
from typing import Any

from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.questions import example_line, target_question
from workflow_scripts.tasks.tabular.schemas import Schema, as_text, read_schema, read_table


def line_of(answer: dict[str, Any], schema: Schema, candidates: list[str], known: set[str]) -> dict[str, Any]:
    """Return the line of a graded answer. `known` holds the training rows as text."""
    row = answer["row"]
    line = {
        "uid": answer["uid"],
        "prompt_id": answer["id"],
        "question": answer["question"],
        "answer": answer["answer"],
        "status": answer["status"],
        "row": row,
        "is_duplicate": False,
        "ds1": None,
        "own": None,
    }

    if row:
        question = target_question(schema, candidates, [], row)
        line["is_duplicate"] = as_text(row) in known
        line["ds1"] = example_line(schema, candidates, row)
        line["own"] = {"after": question.after, "reference": question.reference, "target": row[schema.target]}

    return line


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--tables", required=True, help="folder of the data set, as split_tables wrote it")
    parser.add_argument("--prompts", required=True, help="the anchors' prompts (.json)")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    folder = Path(args.tables)
    schema = read_schema(folder / "schema.json")
    known = {as_text(row) for row in read_table(schema, folder / "train.csv")}
    candidates = read_json(args.prompts)["candidates"]
    answers = [answer for path in args.results for answer in read_records(path) if answer["level"] == schema.name]
    answers.sort(key=lambda answer: answer["uid"])

    lines = [line_of(answer, schema, candidates, known) for answer in answers]
    conserve("syn_addprompt", len(answers), len(lines), 0)
    write_jsonl(args.output, lines)

    counts = {status: sum(line["status"] == status for line in lines) for status in STATUSES}
    duplicates = sum(line["is_duplicate"] for line in lines)
    sources = [*args.results, args.prompts, folder / "schema.json", folder / "train.csv"]
    write_manifest(args.output, sources, {}, rows=len(lines), duplicates=duplicates, **counts)
    print(f"{len(lines)} answers: {counts}, {duplicates} duplicates of training rows")


if __name__ == "__main__":
    run(main)
