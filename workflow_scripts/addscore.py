"""What a task model gains from each synthetic row (r{n}_s4_addreward, syn_addscore).

The model answers the anchors' prompts without the row (ds0, once) and with it as one more example (ds1); its answer is
the candidate of the highest probability, of a quantity their mean. The score is MCC(ds1) - MCC(ds0); for a quantity
MAE(ds0) - MAE(ds1) in standard deviations of the training rows, so that more is better in both. Ten anchors give few
different values, and a good task model answers all of them: the gain in the mean log-probability of the right answers
(`likelihood`) tells equal scores apart. A row is scored by the model of its fold, which did not train on it. What the
prompts share is read once (training/prefixes.py).
"""

import math

import torch
import transformers

from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.ledger import Ledger, map_records
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.prompts import TEMPLATES, render
from workflow_scripts.core.records import conserve, read_json, read_records, write_jsonl
from workflow_scripts.core.schemas import STATUSES
from workflow_scripts.core.sections import Logp
from workflow_scripts.core.tables import fold_of
from workflow_scripts.core.tokens import encode_pieces, encode_prompt
from workflow_scripts.training.prefixes import answer_logps, read_shared

BATCH = 8  # rows whose prompts are read at a time


class Judge:
    """A task model with the anchors' prompts, of which it has read the beginning and answered those of ds0."""

    def __init__(self, checkpoint: str, prompts: dict, template: str, dtype: str):
        folder, device = model_folder(checkpoint), "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
        self.tokenizer, self.template, self.prompts = AutoTokenizer.from_pretrained(folder), template, prompts
        self.answers = [encode_pieces(self.tokenizer, [(f" {one}", True)])[0] for one in prompts["candidates"]]
        plain = self.encode("")
        self.shared = read_shared(self.model, [plain, self.encode("{")])
        self.ds0 = self.judge([plain])[0]

    def encode(self, line: str) -> list[list[int]]:
        """The anchors' prompts with a line between their two parts."""
        texts = [one["before"] + line + one["after"] for one in self.prompts["ds0"]]
        return [encode_prompt(self.tokenizer, render(self.template, text, self.tokenizer)) for text in texts]

    def judge(self, groups: list[list[list[int]]]) -> list[dict]:
        """{answers, score} for each group of the anchors' prompts."""
        logps = answer_logps(self.model, groups, self.answers, self.shared)[0]
        return [scored(found, self.prompts) for found in logps]


def chosen(logps: list[float], prompts: dict) -> str | float:
    """The answer to one prompt: the likeliest label, or the candidates' mean by their probabilities."""
    if prompts["task"] == "classification":
        return prompts["candidates"][max(range(len(logps)), key=logps.__getitem__)]
    weights = [math.exp(value - max(logps)) for value in logps]
    return sum(w * float(c) for w, c in zip(weights, prompts["candidates"])) / sum(weights)


def scored(logps: list[list[float]], prompts: dict) -> dict:
    """{answers, score, likelihood} of the log-probs by anchor and candidate.

    score: Matthews' correlation with the anchors' labels, or minus the scaled mean absolute error. likelihood: the mean
    log-probability of the right candidates among all, by which equal scores are told apart.
    """
    golds, answers = [one["gold"] for one in prompts["ds0"]], [chosen(one, prompts) for one in logps]
    places = [prompts["candidates"].index(gold) for gold in golds]
    right = [one[place] - math.log(sum(math.exp(value - max(one)) for value in one)) - max(one)
             for one, place in zip(logps, places)]  # fmt: skip
    found = {"answers": answers, "likelihood": sum(right) / len(right)}
    if prompts["task"] == "regression":
        errors = [abs(answer - float(gold)) for answer, gold in zip(answers, golds)]
        return found | {"score": -sum(errors) / len(errors) / prompts["scale"]}
    from sklearn.metrics import matthews_corrcoef

    return found | {"score": float(matthews_corrcoef(golds, answers))}


def judged(rows: list[dict], checkpoint: str, prompts: dict, args, dtype: str) -> dict[str, dict]:
    """{uid: {score, likelihood, ds0, ds1}} of rows of one fold; equal rows are judged once."""
    if not rows:
        return {}
    judge, lines = Judge(checkpoint, prompts, args.template, dtype), sorted({row["ds1"] for row in rows})
    common = [policy_digest(checkpoint), prompts, args.template, dtype, code_digests("workflow_scripts.addscore")]
    values = map_records(
        [{"uid": line} for line in lines],
        lambda job: [common, torch.__version__, transformers.__version__, job["uid"]],
        lambda batch: judge.judge([judge.encode(job["uid"]) for job in batch]),
        Ledger(args.ledger or f"{args.output}.ledger", "1_0"),
        [range(i, min(i + BATCH, len(lines))) for i in range(0, len(lines), BATCH)],
        "addscore",
    )
    say(f"{len(lines)} different rows, the task model has {judge.ds0['score']:.3f} without them")
    found = dict(zip(lines, values))
    both = {row["uid"]: {"ds0": judge.ds0, "ds1": found[row["ds1"]]} for row in rows}
    return {uid: one | gain(one) for uid, one in both.items()}


def gain(one: dict) -> dict[str, float]:
    """What the row adds to the task model's score and likelihood."""
    return {name: one["ds1"][name] - one["ds0"][name] for name in ("score", "likelihood")}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--raw", required=True, help="what syn_addprompt wrote (.jsonl)")
    parser.add_argument("--prompts", required=True, help="the anchors' prompts (.json)")
    parser.add_argument("--models", required=True, nargs=2, help="checkpoint.json of the task models of fold 0 and 1")
    parser.add_argument("--copies", choices=("drop", "keep"), default="drop", help="drop: copies have no score")
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), default="deepseek", help="prompt template")
    parser.add_argument("--settings", default="{}", help=settings_help("logp"))
    parser.add_argument("--ledger", help="folder of finished rows; beside the output by default")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()
    settings, prompts = Logp.model_validate_json(args.settings), read_json(args.prompts)
    torch.set_num_threads(settings.threads)
    raw = list(read_records(args.raw))
    wanted = [one for one in raw if one["result"] and (args.copies == "keep" or not one["copy"])]
    scores: dict[str, dict] = {}
    for fold, checkpoint in enumerate(args.models):
        scores |= judged(
            [one for one in wanted if fold_of(one["result"]) == fold], checkpoint, prompts, args, settings.dtype
        )
    conserve("addscore", len(wanted), len(scores), 0)
    empty = {"score": None, "likelihood": None, "ds0": None, "ds1": None}
    lines = []
    for one in raw:
        kept = {key: one[key] for key in ("uid", "syn_pmt_id", "answer", "status", "result", "copy")}
        lines.append(kept | {"status_score": STATUSES[one["status"]]} | scores.get(one["uid"], empty))
    write_jsonl(args.output, lines)
    mean = sum(one["score"] for one in scores.values()) / max(1, len(scores))
    used = {"copies": args.copies, "template": args.template}
    write_manifest(args.output, [args.raw, args.prompts, *args.models], used, rows=len(lines), scored=len(scores))
    print(f"{len(scores)} of {len(raw)} answers scored, mean gain {mean:+.4f}")


if __name__ == "__main__":
    run(main)
