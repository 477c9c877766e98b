"""Follow a record through a run: prompt, answer, verdict, what the data stage did with it, and what was learnt from it.

    python -m workflow_scripts.trace eddf786017670691.auto.1       # an answer by its uid, in all rounds
    python -m workflow_scripts.trace "Calculate 1 + 0."            # a question (its text, a part of it, or its id)
    python -m workflow_scripts.trace round2:40                     # the rows of update 40 of round 2's training

Which update trained on a row follows from the rows, the seed and the batch size. Ratios of single rows are not kept:
those that are shown are of all tokens of the update, or of the few updates that training logs together. The run is the
one in runs/ that was started last; `--run` names another one.
"""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.overview.lineage import Answer, Lineage
from workflow_scripts.report import task_of

UPDATE = re.compile(r"(?:round|r)(\d+):(\d+)")


def only_run() -> Path:
    """Return the run that was started last. Raise BadInput if there is none."""
    notes = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not notes:
        raise BadInput("runs/: there is no run here; name its folder with --run")
    return notes[-1].parent


# ---------------------------------------------------------------- printing


def print_question(prompt: dict[str, Any]) -> None:
    print(f"question   {prompt['question']}")
    print(f"id         {prompt['id']}, {prompt['split']}, level {prompt['level']}")
    print(f"reference  {prompt['reference']}")


def print_answer(answer: Answer, is_full: bool) -> None:
    """Print what became of an answer: in one line, or with its texts."""
    record = answer.record
    title = f"round {answer.round}, {answer.place}: {record['uid']}, reward {record['reward']:g}"
    if not is_full:
        path = f", {record['path']}" if record.get("path") else ""
        print(f"  {title}{path}; {_fate(answer)}")
        return

    print(f"\n── {title} ──")
    print(f"asked      {record['prompt_text']!r}")
    print(f"by         policy {record['policy']} ({_policy(answer)})")
    print(
        f"answer     {sum(record['mask'])} sampled tokens, ended by {record['finish']}; outputs of programs included:"
    )
    for line in _text_of(record).strip("\n").splitlines():
        print(f"  │ {line}")
    verdict = "; ".join(f"{name} {_shown(value)}" for name, value in answer.verdict.items())
    print(f"verdict    reward {record['reward']:g}{f'; {verdict}' if verdict else ''}")
    print(f"file       {answer.file}")
    print(f"then       {_fate(answer)}")
    print_left_out([answer])
    if answer.training and answer.training.logp is not None:
        print(f"log-prob   {answer.training.logp:.4f} per sampled token, under the policy that answered")
    for update, values in answer.training.logged.items() if answer.training else ():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"  update {update}: {shown}")


def print_left_out(answers: list[Answer]) -> None:
    """Print why the answers of a round to one question were left out, if some were."""
    reasons = next((answer.left_out for answer in answers if answer.left_out), {})
    if reasons:
        counts = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
        print(f"           left out of the answers to this question: {counts}")


def _policy(answer: Answer) -> str:
    checkpoint = answer.round if answer.place == "evaluation" else answer.round - 1
    return f"checkpoint {checkpoint}"


def _text_of(record: dict[str, Any]) -> str:
    if record.get("turns"):
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in record["turns"])
    return record["answer"]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fate(answer: Answer) -> str:
    """Return what the data stage and the training did with an answer, in words."""
    if answer.place == "evaluation":
        return "counted in the evaluation, never trained on"
    if answer.training is None:
        return "left out of the training data" if answer.left_out else "the round has no training data yet"

    training = answer.training
    advantage = "" if training.advantage is None else f", advantage {training.advantage:g}"
    row = f"a training row ({training.kind}{advantage})"
    if not training.updates:
        return f"{row}, not trained on"
    plural = "s" if len(training.updates) > 1 else ""
    return f"{row}, trained on in update{plural} {', '.join(map(str, training.updates))}"


def print_update(lineage: Lineage, number: int, update: int) -> None:
    """Print the rows of an update, and its logged metrics."""
    rows = lineage.rows_of_update(number, update)
    print(f"round {number}, update {update}: {len(rows)} rows")
    for row in sorted(rows, key=lambda row: row["uid"]):
        advantage = f"{row['advantage']:g}" if row.get("advantage") is not None else "–"
        question = row.get("question", "")
        print(f"  {row['uid']}  {row.get('kind', '')}  advantage {advantage}  {question[:60]!r}")

    training = lineage.training(number, rows[0])
    for name, value in training.logged.get(update, {}).items():
        print(f"  {name} {value:.4g}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("record", help="uid of an answer, id or text of a question, or round<n>:<update>")
    parser.add_argument("--run", type=Path, help="the run's folder (default: the one that was started last)")
    parser.add_argument("--round", type=int, help="only this round")
    args = parser.parse_args()

    folder = args.run or only_run()
    if not folder.is_dir():
        raise BadInput(f"{folder}: nothing has been made here yet")
    lineage = Lineage(folder, task_of(folder))

    if match := UPDATE.fullmatch(args.record):
        print_update(lineage, int(match[1]), int(match[2]))
        return

    prompt_id = args.record.rsplit(".", 2)[0]
    is_uid = args.record.count(".") >= 2 and prompt_id in lineage.prompts
    prompt = lineage.prompts[prompt_id] if is_uid else lineage.question(args.record)
    answers = lineage.answers(prompt["id"], args.record if is_uid else None)
    answers = [answer for answer in answers if args.round in (None, answer.round)]

    print_question(prompt)
    if not answers:
        print("No round has a graded answer to it." if not is_uid else "No round has a graded answer with this uid.")
    for _, members in groupby(answers, key=lambda answer: (answer.round, answer.place == "evaluation")):
        of_round = list(members)
        for answer in of_round:
            print_answer(answer, is_full=is_uid)
        if not is_uid:
            print_left_out(of_round)
    if answers and not is_uid:
        print(f"\nType `python -m workflow_scripts.trace {answers[0].record['uid']}` for one of them.")


if __name__ == "__main__":
    run(main)
