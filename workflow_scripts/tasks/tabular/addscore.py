"""Score synthetic rows by what a task model gains from each of them.

The model answers the anchors' prompts without the row (ds0, once) and with it as one more example (ds1). Its answer is
the likeliest candidate, or, for a quantity, the mean of the candidates by their probabilities. The score is
MCC(ds1) - MCC(ds0); for a quantity MAE(ds0) - MAE(ds1) in standard deviations of the training rows, so that more is
better in both.

Ten anchors give few different values, and a good task model answers all of them without help. Therefore the likelihood
of the row's own target under the model tells equal scores apart: the log-probability of its label, or minus the number
of deviations between a quantity and the answer. A label that is likelier than its share among real rows, or a quantity
nearer than half a deviation, counts as exactly so likely: otherwise the plainest rows would win, and rows of frequent
labels would be preferred less often than those of rare ones.

A row is scored by the model of its fold, which did not train on it. What prompts share is read once (`prefixes.py`).
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
import transformers

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Logp
from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, add_template_argument, arguments, run, say
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_pieces, encode_prompt
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.prefixes import answer_logps, read_beginning
from workflow_scripts.tasks.tabular.tables import fold_of

NEAREST = -0.5  # the likelihood of a quantity is cut off here
PROMPTS_HELD = 160  # prompts whose keys and values are held at a time, with their answers

Line = dict[str, Any]  # a line that syn_addprompt wrote


class Anchors(TypedDict):
    """The questions about the anchors that task models are asked (gen_scoreanchors)."""

    task: str  # classification or regression
    candidates: list[str]
    scale: float  # unit of errors
    shares: dict[str, float]  # label → share among real rows
    ds0: list[dict[str, str]]  # before, after, reference


class Answered(TypedDict):
    """The answers to the anchors' prompts, and their measure."""

    answers: list[str | float]
    score: float


class Score(TypedDict):
    """The gain of a task model from a row. All fields are None for answers that are not scored."""

    score: float | None
    likelihood: float | None
    ds0: Answered | None
    ds1: Answered | None


UNSCORED: Score = {"score": None, "likelihood": None, "ds0": None, "ds1": None}


# ---------------------------------------------------------------- measures


def chosen_answer(logps: Sequence[float], anchors: Anchors) -> str | float:
    """Return the answer to one prompt: the likeliest label, or the candidates' mean by their probabilities."""
    candidates = anchors["candidates"]
    if anchors["task"] == "classification":
        return candidates[max(range(len(logps)), key=logps.__getitem__)]

    weights = [math.exp(value - max(logps)) for value in logps]
    return sum(weight * float(candidate) for weight, candidate in zip(weights, candidates)) / sum(weights)


def measured(logps: Sequence[Sequence[float]], anchors: Anchors) -> Answered:
    """Return the answers and their measure: Matthews' correlation, or minus the scaled mean absolute error.

    `logps` are those of the candidates, by anchor.
    """
    references = [prompt["reference"] for prompt in anchors["ds0"]]
    answers = [chosen_answer(values, anchors) for values in logps]

    if anchors["task"] == "regression":
        errors = [abs(float(answer) - float(reference)) for answer, reference in zip(answers, references)]
        return {"answers": answers, "score": -sum(errors) / len(errors) / anchors["scale"]}

    from sklearn.metrics import matthews_corrcoef

    return {"answers": answers, "score": float(matthews_corrcoef(references, answers))}


def likelihood(logps: Sequence[float], own: dict[str, Any], anchors: Anchors) -> float:
    """Return the likelihood of a row's target.

    For a label that is its log-probability among all labels, at most the logarithm of its share among real rows. For a
    quantity it is minus its scaled distance from the answer, at most NEAREST.
    """
    if anchors["task"] == "regression":
        distance = abs(float(chosen_answer(logps, anchors)) - own["target"])
        return min(-distance / anchors["scale"], NEAREST)

    label = own["reference"]
    total = max(logps) + math.log(sum(math.exp(value - max(logps)) for value in logps))
    share = anchors["shares"][label]
    return min(logps[anchors["candidates"].index(label)] - total, math.log(share) if share else 0.0)


# ---------------------------------------------------------------- the task model


def load_model(checkpoint: str, dtype: str) -> tuple[Any, Any]:
    """Return a checkpoint's model, on the GPU if there is one, and its tokenizer."""
    folder = model_folder(checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.eval().to(device), AutoTokenizer.from_pretrained(folder)


class TaskModel:
    """A task model that has read the beginning of the anchors' prompts, and answered those of ds0."""

    def __init__(self, checkpoint: str, anchors: Anchors, template: str, dtype: str):
        self.model, self.tokenizer = load_model(checkpoint, dtype)
        self.template = template
        self.anchors = anchors

        pieces = [[(f" {candidate}", True)] for candidate in anchors["candidates"]]
        self.candidates = [encode_pieces(self.tokenizer, piece)[0] for piece in pieces]
        self.before = anchors["ds0"][0]["before"]  # the same for all anchors

        without_row = self.encode_anchors("")
        self.beginning = read_beginning(self.model, [without_row, self.encode_anchors("{")])
        self.ds0 = measured(self.logps([without_row])[0], anchors)

    def encode_anchors(self, example: str) -> list[list[int]]:
        """Return the anchors' prompts with an example between their two parts, as token ids."""
        return [self.encode(example + prompt["after"]) for prompt in self.anchors["ds0"]]

    def encode(self, rest: str) -> list[int]:
        """Return a prompt with the anchors' beginning, as token ids."""
        return encode_prompt(self.tokenizer, render(self.template, self.before + rest, self.tokenizer))

    def logps(self, groups: list[list[list[int]]]) -> list[list[list[float]]]:
        """Return the log-probs of the candidates, by group and prompt."""
        values, _ = answer_logps(self.model, groups, self.candidates, self.beginning)
        return values

    def judge(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Return {ds1, likelihood} of each row."""
        with_rows = self.logps([self.encode_anchors(line["ds1"]) for line in lines])
        of_targets = self.logps([[self.encode(line["own"]["after"])] for line in lines])

        judgements = []
        for line, of_anchors, [of_target] in zip(lines, with_rows, of_targets):
            judgements.append(
                {
                    "ds1": measured(of_anchors, self.anchors),
                    "likelihood": likelihood(of_target, line["own"], self.anchors),
                }
            )
        return judgements


# ---------------------------------------------------------------- the rows of a fold


def content_of(line: Line) -> str:
    """Return all that a row is scored by, as text."""
    return f"{line['ds1']}{line['own']['target']}"


def scores_of(lines: Sequence[Line], checkpoint: str, anchors: Anchors, args: argparse.Namespace) -> dict[str, Score]:
    """Return the scores of the rows of one fold by uid. Equal rows are scored once."""
    if not lines:
        return {}

    settings = Logp.model_validate_json(args.settings)
    model = TaskModel(checkpoint, anchors, args.template, settings.dtype)
    different = {content_of(line): line for line in lines}
    jobs = [{"uid": content, "line": different[content]} for content in sorted(different)]
    size = max(1, PROMPTS_HELD // (len(anchors["ds0"]) * len(anchors["candidates"])))
    common = [
        policy_digest(checkpoint),
        anchors,
        args.template,
        settings.dtype,
        torch.__version__,
        transformers.__version__,
        args.code or code_identity("workflow_scripts.tasks.tabular.addscore:main"),
    ]

    judgements = map_records(
        jobs,
        determines=lambda job: [common, job["uid"]],
        compute=lambda batch: model.judge([job["line"] for job in batch]),
        ledger=Ledger(args.ledger or f"{args.output}.ledger", "1_0"),
        batches=[range(i, min(i + size, len(jobs))) for i in range(0, len(jobs), size)],
        desc="addscore",
    )
    say(f"{len(jobs)} different rows; without them the task model has {model.ds0['score']:.3f}")

    scores: dict[str, Score] = {}
    for job, judgement in zip(jobs, judgements):
        gain = judgement["ds1"]["score"] - model.ds0["score"]
        scores[job["uid"]] = {
            "score": gain,
            "likelihood": judgement["likelihood"],
            "ds0": model.ds0,
            "ds1": judgement["ds1"],
        }
    return {line["uid"]: scores[content_of(line)] for line in lines}


# ---------------------------------------------------------------- the stage


def scored_line(line: Line, score: Score, has_labels: bool) -> dict[str, Any]:
    """Return a line of the output: an answer with its status and what a task model gains from it.

    `label` is the label of a scored row; it is None for a quantity.
    """
    is_labelled = has_labels and score["score"] is not None
    kept = {name: line[name] for name in ("uid", "prompt_id", "answer", "status", "row", "is_duplicate")}
    own = {
        "status_score": STATUSES[line["status"]],
        "label": line["own"]["reference"] if is_labelled else None,
    }
    return kept | own | score


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--raw", required=True, help="what syn_addprompt wrote (.jsonl)")
    parser.add_argument("--prompts", required=True, help="the anchors' prompts (.json)")
    parser.add_argument("--models", required=True, nargs=2, help="checkpoint.json of the task models of folds 0 and 1")
    parser.add_argument("--copies", choices=("drop", "keep"), default="drop", help="drop: duplicates get no score")
    add_template_argument(parser)
    parser.add_argument("--settings", default="{}", help=settings_help("logp"))
    parser.add_argument("--ledger", help="folder of finished rows (default: beside the output)")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(Logp.model_validate_json(args.settings).threads)
    anchors = read_json(args.prompts)
    lines = list(read_records(args.raw))
    rows = [line for line in lines if line["row"] and (args.copies == "keep" or not line["is_duplicate"])]

    scores: dict[str, Score] = {}
    for fold, checkpoint in enumerate(args.models):
        of_fold = [line for line in rows if fold_of(line["row"]) == fold]
        scores |= scores_of(of_fold, checkpoint, anchors, args)
    conserve("addscore", len(rows), len(scores), 0)

    has_labels = anchors["task"] == "classification"
    write_jsonl(args.output, [scored_line(line, scores.get(line["uid"], UNSCORED), has_labels) for line in lines])
    used = {"copies": args.copies, "template": args.template}
    inputs = [args.raw, args.prompts, *args.models]
    write_manifest(args.output, inputs, used, rows=len(lines), scored=len(scores))

    gains = [score["score"] or 0.0 for score in scores.values()]
    print(f"{len(scores)} of {len(lines)} answers scored, mean gain {sum(gains) / max(1, len(gains)):+.4f}")


if __name__ == "__main__":
    run(main)
