"""A round's policy answers one shard of the prompts, in auto, trigger or eval mode (or those of a pool).

An answer is a conversation: where the policy stops for the environment (a program to run), the environment's text
is appended, masked, and the policy goes on. Finished conversations are kept in the ledger. With the engine openai
a teacher answers in the policy's place: its text is tokenised once, here, and marked `foreign`; each of its requests
is kept in a ledger of its own, and answers that cannot be used are listed in OUTPUT.rejects.jsonl. By hand:

    python -m workflow_scripts.generate --task arithmetic --prompts runs/arithmetic/prompts/eval.parquet \\
        --model runs/arithmetic/checkpoints/r0/checkpoint.json --version eval --output /tmp/answers.pkl
"""

import json
import time
from collections import Counter
from contextlib import closing

from workflow_scripts import engines, tasks
from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.cli import arguments, run, say, shard
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.copies import Copies
from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.formats import existing_answers
from workflow_scripts.core.ledger import Ledger, map_records
from workflow_scripts.core.manifest import content_digest, write_manifest, write_usage
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.prompts import TEMPLATES, as_messages, render
from workflow_scripts.core.records import conserve, read_records, shard_of, write_pickle, write_rejects
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.core.sections import Generate, without_endpoint
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.engines.conversation import converse_in_text, foreign, well_formed


def asked(record: dict, version: str, task, template: str, samples: int, tokenizer) -> list[dict]:
    """The conversations that one prompt asks for: triggers × samples."""
    jobs = []
    for trigger, question in task.requests(record["question"], version).items():
        req = render(template, question, tokenizer)
        text = question if isinstance(question, str) else record["question"]
        prompt = encode_prompt(tokenizer, req)
        for sample in range(samples):
            jobs.append(
                {
                    "uid": f"{record['id']}.{trigger}.{sample}",
                    "trigger": trigger,
                    "question": text,
                    "messages": as_messages(question),
                    "req": req,
                    "prompt_tokens": prompt,
                    "record": record,
                }
            )
    return jobs


def sampled(jobs: list[dict], engine, task, run, args, settings: dict, copies: Copies) -> list[dict]:
    """All conversations with the policy, batch by batch through the ledger."""
    sampling, size = settings[args.version], settings["batch_size"]
    drawn = {key: value for key, value in sampling.items() if key not in ("samples", "engine")}
    code = code_digests("workflow_scripts.generate", engine.__module__, task.__name__)
    common = [policy_digest(args.model), drawn, args.seed, args.sandbox, engine.version, code]
    if args.environment:
        common += [args.environment, content_digest(args.catalogue)]
    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i]["prompt_tokens"]), jobs[i]["uid"]))
    return map_records(
        jobs,
        lambda job: [common, job["uid"], job["prompt_tokens"]],
        lambda batch: well_formed(batch, engine, task, run, sampling, args.seed, args.template),
        Ledger(args.ledger or f"{args.output}.ledger", args.shard),
        [order[i : i + size] for i in range(0, len(order), size)],
        f"generate {args.version} {args.shard}",
        copies,
    )


def read_arguments():
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--model", required=True, help="checkpoint.json of the policy")
    parser.add_argument("--version", required=True, choices=("auto", "trigger", "eval", "pool"), help="how it is asked")
    parser.add_argument("--answered", help="a .csv whose ids need no answer")
    parser.add_argument("--settings", default="{}", help=settings_help("generate"))
    parser.add_argument("--endpoint", default="{}", help="keys of generate.openai that no result depends on, as JSON")
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), default="deepseek", help="prompt template")
    parser.add_argument("--seed", default="0", help="seed of the round: equal seeds give equal answers")
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--shard-file", help="the shard's digest file, recorded as an input")
    parser.add_argument("--tensor-parallel", type=int, help="GPUs of one copy of the model; all visible ones if unset")
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument("--environment", help=settings_help("recommend"))
    parser.add_argument("--seeker", default="{}", help="keys of recommend.seeker.openai that no result depends on")
    parser.add_argument("--seeker-requests", help="folder of the seeker's paid requests; beside the output by default")
    parser.add_argument("--catalogue", help="what the stage catalogue wrote (.pkl), with --environment")
    parser.add_argument("--ledger", help="folder of finished conversations; beside the output by default")
    parser.add_argument("--requests", help="folder of paid requests and what they cost; beside the output by default")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    started, task = time.time(), tasks.load(args.task)
    given = json.loads(args.settings)
    if given.get("openai"):
        given["openai"] |= json.loads(args.endpoint)
    settings = Generate.model_validate(given).model_dump(mode="json")
    sampling, model, rejects = settings[args.version], model_folder(args.model), []
    shards, rank = map(int, args.shard.split("_"))
    records = [record for record in read_records(args.prompts) if shard_of(record["id"], shards) == rank]
    if args.answered:
        known, count = existing_answers(args.answered), len(records)
        records = [record for record in records if record["id"] not in known]
        say(f"{count - len(records)} of {count} prompts have an answer in {args.answered}")
    common = {"sampling": sampling, "stop": task.STOP}

    with environment(args, task) as run:
        if settings["engine"] == "openai":
            paid = Ledger(args.requests or f"{args.output}.requests", args.shard)
            purpose = f"generate {args.version} (seed {args.seed})"
            engine = engines.load("openai", settings=settings["openai"], ledger=paid, purpose=purpose, **common)
            tokenizer, policy = AutoTokenizer.from_pretrained(model), "foreign"
        else:
            copies = Copies(args.tensor_parallel if settings["engine"] == "vllm" else 1)
            engine = engines.load(settings["engine"], model=model, settings=settings, **common)
            tokenizer, policy = engine.tokenizer, policy_digest(args.model)
        jobs = []
        for record in records:
            jobs += asked(record, args.version, task, args.template, sampling["samples"], tokenizer)
        if policy == "foreign":
            states = converse_in_text(jobs, engine, task, run, sampling, args.seed)
        else:
            states = sampled(jobs, engine, task, run, args, settings, copies)
        rejects = [job | state for job, state in zip(jobs, states) if state.get("rejected")]
        answers = [(job, state) for job, state in zip(jobs, states) if not state.get("rejected")]
        if policy == "foreign":
            answers = [(job, foreign(state, task, tokenizer, args.template)) for job, state in answers]
    results = [answered(job, state, policy, tokenizer) for job, state in answers]
    conserve("generate", len(jobs), len(results), len(rejects))
    publish(args, settings, engine, policy, records, results, rejects, time.time() - started)


def environment(args, task):
    """What answers the policy: the sandbox, or the task's own environment."""
    if not args.environment:
        return Sandbox(isolate=args.sandbox == "on")
    given, paid = Recommend.model_validate_json(args.environment).model_dump(mode="json"), None
    if given["seeker"]["openai"]:
        given["seeker"]["openai"] |= json.loads(args.seeker)
        paid = Ledger(args.seeker_requests or f"{args.output}.seeker_requests", args.shard)
    return closing(task.environment(given, args.catalogue, args.version, paid))


def publish(args, settings, engine, policy, records, results, rejects, seconds: float) -> None:
    """The results, their manifest, what they cost, and the rejects with their reasons."""
    write_pickle(args.output, results)
    if policy == "foreign" or args.environment:
        kept = ("uid", "question", "text", "turns")
        listed = [{k: job[k] for k in kept if k in job} | {"reason": job["rejected"]} for job in rejects]
        write_rejects(args.output, listed)
    unused = {"auto", "trigger", "eval", "pool"} - {args.version}
    settings = {name: value for name, value in without_endpoint(settings).items() if name not in unused}
    played = {"environment": json.loads(args.environment)} if args.environment else {}
    write_manifest(
        args.output,
        [args.model, *filter(None, (args.shard_file, args.catalogue))],
        settings | {"version": args.version, "template": args.template, "seed": args.seed} | played,
        prompts=len(records),
        rows=len(results),
        rejects=dict(sorted(Counter(job["rejected"].split(":")[0] for job in rejects).items())),
        policy=policy,
        engine=engine.version,
        **({"form": form(results)} if args.environment else {}),
    )
    count = sum(sum(result["mask"]) for result in results)
    write_usage(args.output, seconds=seconds, sampled_tokens=count, **getattr(engine, "usage", {}))
    bad = f", {len(rejects)} rejects" if rejects else ""
    say(f"{args.output}: {len(results)} answers to {len(records)} prompts{bad}, {count} sampled tokens")


def form(results: list[dict]) -> dict[str, int]:
    """How many answers were drawn again for their form, how often in all, and how many are wrong at the end."""
    again = [result["drawn"] - 1 for result in results if "drawn" in result]
    return {"answers": len(again), "draws": sum(again), "wrong": sum(bool(result.get("fault")) for result in results)}


def answered(job: dict, state: dict, policy: str, tokenizer) -> dict:
    """A result record: AutoCode's fields, and the tokens as they were sampled."""
    record = job["record"]
    return {
        "question": job["question"],
        "solution": tokenizer.decode(state["tokens"], skip_special_tokens=True),
        "correct": record["answer"],
        "req": job["req"],
        "task": record["level"],
        "level": record["level"],
        "id": record["id"],
        "uid": job["uid"],
        "trigger": job["trigger"],
        "prompt_tokens": job["prompt_tokens"],
        "tokens": state["tokens"],
        "mask": state["mask"],
        "finish": state["finish"],
        "sampled_logps": state["logps"],
        "policy": policy,
    } | {name: state[name] for name in ("turns", "fault", "drawn") if name in state}


if __name__ == "__main__":
    run(main)
