"""What a task model gains from each synthetic row (r{n}_s4_addreward, syn_addscore).

The model answers the anchors' prompts without the row (ds0, once) and with it as one more example (ds1); its answer is
the candidate of the highest probability, of a quantity their mean. The score is MCC(ds1) - MCC(ds0); for a quantity
MAE(ds0) - MAE(ds1) in standard deviations of the training rows, so that more is better in both. Ten anchors give few
different values, and a good task model answers all of them without help: equal scores are told apart by the
log-likelihood of the row's own target under the model, which is the label's log-probability, or (Laplace) minus the
deviations that a quantity is away from the answer. What is more likely than one half, or nearer than half a deviation,
is as good as any: the plainest rows would win otherwise. A row is scored by the model of its fold, which did not train
on it. What the prompts share is read once (training/prefixes.py).
"""

import math

import torch
import transformers

from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.core.code import code_digests
from workflow_scripts.config.load import settings_help
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.templates import TEMPLATES, render
from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.tasks.tabular.schemas import STATUSES
from workflow_scripts.config.sections import Logp
from workflow_scripts.tasks.tabular.tables import fold_of
from workflow_scripts.core.tokens import encode_pieces, encode_prompt
from workflow_scripts.tasks.tabular.prefixes import answer_logps, read_shared

SURE = {"classification": math.log(0.5), "regression": -0.5}  # likelihood of a target that is as good as any
UNSCORED = {"score": None, "likelihood": None, "ds0": None, "ds1": None}
HELD = 160  # prompts, each with its answers, whose keys and values are held at a time


class TaskModel:
    """A task model with the anchors' prompts, of which it has read the beginning and answered those of ds0."""

    def __init__(self, checkpoint: str, prompts: dict, template: str, dtype: str):
        folder, device = model_folder(checkpoint), "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
        self.tokenizer, self.template, self.prompts = AutoTokenizer.from_pretrained(folder), template, prompts
        self.answers = [encode_pieces(self.tokenizer, [(f" {one}", True)])[0] for one in prompts["candidates"]]
        self.before = prompts["ds0"][0]["before"]  # the same in all
        plain = self.encode("")
        self.shared = read_shared(self.model, [plain, self.encode("{")])
        self.ds0 = scored(self.logps([plain])[0], prompts)

    def encode(self, line: str) -> list[list[int]]:
        """The anchors' prompts with a line between their two parts."""
        return [self.prompt(line + one["after"]) for one in self.prompts["ds0"]]

    def prompt(self, rest: str) -> list[int]:
        return encode_prompt(self.tokenizer, render(self.template, self.before + rest, self.tokenizer))

    def logps(self, groups: list[list[list[int]]]) -> list[list[list[float]]]:
        """Of the candidates, by group and prompt."""
        return answer_logps(self.model, groups, self.answers, self.shared)[0]

    def judge(self, rows: list[dict]) -> list[dict]:
        """{ds1, likelihood} of each row."""
        with_rows = self.logps([self.encode(row["ds1"]) for row in rows])
        own = self.logps([[self.prompt(row["own"]["after"])] for row in rows])
        return [
            {"ds1": scored(found, self.prompts), "likelihood": likelihood(alone, row["own"], self.prompts)}
            for row, found, [alone] in zip(rows, with_rows, own)
        ]


def chosen(logps: list[float], prompts: dict) -> str | float:
    """The answer to one prompt: the likeliest label, or the candidates' mean by their probabilities."""
    if prompts["task"] == "classification":
        return prompts["candidates"][max(range(len(logps)), key=logps.__getitem__)]
    weights = [math.exp(value - max(logps)) for value in logps]
    return sum(w * float(c) for w, c in zip(weights, prompts["candidates"])) / sum(weights)


def likelihood(logps: list[float], own: dict, prompts: dict) -> float:
    """Of a row's target: the log-probability of its label among all, or minus the scaled distance from the answer; at
    most SURE."""
    if prompts["task"] == "regression":
        found = -abs(chosen(logps, prompts) - own["target"]) / prompts["scale"]
    else:
        whole = max(logps) + math.log(sum(math.exp(value - max(logps)) for value in logps))
        found = logps[prompts["candidates"].index(own["gold"])] - whole
    return min(found, SURE[prompts["task"]])


def line(row: dict) -> str:
    """All that a row is scored by, as text."""
    return f"{row['ds1']}{row['own']['target']}"


def scored(logps: list[list[float]], prompts: dict) -> dict:
    """{answers, score} of the log-probs by anchor and candidate: Matthews' correlation with the anchors' labels, or
    minus the scaled mean absolute error."""
    golds, answers = [one["gold"] for one in prompts["ds0"]], [chosen(one, prompts) for one in logps]
    if prompts["task"] == "regression":
        errors = [abs(answer - float(gold)) for answer, gold in zip(answers, golds)]
        return {"answers": answers, "score": -sum(errors) / len(errors) / prompts["scale"]}
    from sklearn.metrics import matthews_corrcoef

    return {"answers": answers, "score": float(matthews_corrcoef(golds, answers))}


def judged(rows: list[dict], checkpoint: str, prompts: dict, args, dtype: str) -> dict[str, dict]:
    """{uid: {score, likelihood, ds0, ds1}} of rows of one fold; equal rows are judged once."""
    if not rows:
        return {}
    model, different = TaskModel(checkpoint, prompts, args.template, dtype), {line(row): row for row in rows}
    jobs = [{"uid": uid, "row": different[uid]} for uid in sorted(different)]
    batch = max(1, HELD // (len(prompts["ds0"]) * len(prompts["candidates"])))
    common = [policy_digest(checkpoint), prompts, args.template, dtype, code_digests("workflow_scripts.addscore")]
    values = map_records(
        jobs,
        lambda job: [common, torch.__version__, transformers.__version__, job["uid"]],
        lambda batch: model.judge([job["row"] for job in batch]),
        Ledger(args.ledger or f"{args.output}.ledger", "1_0"),
        [range(i, min(i + batch, len(jobs))) for i in range(0, len(jobs), batch)],
        "addscore",
    )
    say(f"{len(jobs)} different rows, the task model has {model.ds0['score']:.3f} without them")
    found = {job["uid"]: value | {"ds0": model.ds0} for job, value in zip(jobs, values)}
    gains = {uid: {"score": one["ds1"]["score"] - one["ds0"]["score"]} | one for uid, one in found.items()}
    return {row["uid"]: gains[line(row)] for row in rows}


def with_score(one: dict, label: str | None, score: dict) -> dict:
    """A line of the output: an answer, its status and label, and what a task model gains from it."""
    kept = {key: one[key] for key in ("uid", "syn_pmt_id", "answer", "status", "result", "copy")}
    return kept | {"status_score": STATUSES[one["status"]], "label": label} | score


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
    labels = {one["uid"]: one["own"]["gold"] for one in wanted} if prompts["task"] == "classification" else {}
    lines = [with_score(one, labels.get(one["uid"]), scores.get(one["uid"], UNSCORED)) for one in raw]
    write_jsonl(args.output, lines)
    mean = sum(one["score"] for one in scores.values()) / max(1, len(scores))
    used = {"copies": args.copies, "template": args.template}
    write_manifest(args.output, [args.raw, args.prompts, *args.models], used, rows=len(lines), scored=len(scores))
    print(f"{len(scores)} of {len(raw)} answers scored, mean gain {mean:+.4f}")


if __name__ == "__main__":
    run(main)
