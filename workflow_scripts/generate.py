"""A round's policy answers one shard of the prompts, in auto, trigger or eval mode.

An answer is a conversation: where the policy stops for the environment (a program to run), the environment's text
is appended, masked, and the policy goes on. Finished conversations are kept in the ledger. By hand:

    python -m workflow_scripts.generate --task arithmetic --prompts runs/arithmetic/prompts/eval.parquet \\
        --model runs/arithmetic/checkpoints/r0/checkpoint.json --version eval --output /tmp/answers.pkl
"""

import time

from workflow_scripts import engines, tasks
from workflow_scripts.core.checkpoint import model_folder, policy_digest
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import Generate, settings_help
from workflow_scripts.core.ledger import Ledger, map_records
from workflow_scripts.core.manifest import write_manifest, write_usage
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import conserve, digest, read_records, shard_of, write_pickle
from workflow_scripts.core.sandbox import Sandbox


def asked(record: dict, version: str, task, template: str, samples: int, tokenizer) -> list[dict]:
    """The conversations that one prompt asks for: triggers × samples."""
    jobs = []
    for trigger, question in task.requests(record["question"], version).items():
        req = render(template, question, tokenizer)
        prompt = tokenizer.encode(req, add_special_tokens=False)
        for sample in range(samples):
            jobs.append(
                {
                    "uid": f"{record['id']}.{trigger}.{sample}",
                    "trigger": trigger,
                    "question": question,
                    "req": req,
                    "prompt_tokens": prompt,
                    "record": record,
                }
            )
    return jobs


def converse(jobs: list[dict], engine, task, sandbox, sampling: dict, seed: str) -> list[dict]:
    """Play a batch of conversations to their ends: tokens, mask (1 = sampled), finish reason, sampled log-probs."""
    states = [{"tokens": [], "mask": [], "logps": [], "finish": "turns"} for _ in jobs]
    active = list(range(len(jobs)))
    for turn in range(sampling["turns"]):
        wanted = []
        for i in active:
            context = jobs[i]["prompt_tokens"] + states[i]["tokens"]
            own = int(digest([seed, jobs[i]["uid"], turn]), 16)
            wanted.append(engines.Request(context, own, sampling["max_tokens"] - sum(states[i]["mask"])))
        going_on = []
        for i, answer in zip(active, engine.generate(wanted)):
            state = states[i]
            state["tokens"] += answer.tokens
            state["mask"] += [1] * len(answer.tokens)
            state["logps"] += answer.logps
            state["finish"] = answer.finish
            if answer.finish != "stop" or sum(state["mask"]) >= sampling["max_tokens"]:
                continue
            text = engine.tokenizer.decode(state["tokens"])
            if (said := task.reply(text, sandbox)) is not None:
                ids = engine.tokenizer.encode(said, add_special_tokens=False)
                state["tokens"] += ids
                state["mask"] += [0] * len(ids)
                state["finish"] = "turns"
                going_on.append(i)
        active = going_on
        if not active:
            break
    return states


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--model", required=True, help="checkpoint.json of the policy")
    parser.add_argument("--version", required=True, choices=("auto", "trigger", "eval"), help="how it is asked")
    parser.add_argument("--settings", default="{}", help=settings_help("generate"))
    parser.add_argument("--template", default="deepseek", help="prompt template: deepseek, alpaca or chat")
    parser.add_argument("--seed", default="0", help="seed of the round: equal seeds give equal answers")
    parser.add_argument("--shard", default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--shard-file", help="the shard's digest file, recorded as an input")
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument("--ledger", help="folder of finished conversations; beside the output by default")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    started, task = time.time(), tasks.load(args.task)
    settings = Generate.model_validate_json(args.settings).model_dump(mode="json")
    sampling = settings[args.version]
    shards, rank = map(int, args.shard.split("_"))
    records = [record for record in read_records(args.prompts) if shard_of(record["id"], shards) == rank]

    with Sandbox(isolate=args.sandbox == "on") as sandbox:
        engine = engines.load(
            settings["engine"], model=model_folder(args.model), settings=settings, sampling=sampling, stop=task.STOP
        )
        jobs = []
        for record in records:
            jobs += asked(record, args.version, task, args.template, sampling["samples"], engine.tokenizer)
        policy = policy_digest(args.model)
        drawn = {key: value for key, value in sampling.items() if key != "samples"}
        code = code_digests("workflow_scripts.generate", engine.__module__, task.__name__)
        common = [policy, drawn, args.seed, args.sandbox, engine.version, code]
        order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i]["prompt_tokens"]), jobs[i]["uid"]))
        size = settings["batch_size"]
        states = map_records(
            jobs,
            lambda job: [common, job["uid"], job["prompt_tokens"]],
            lambda batch: converse(batch, engine, task, sandbox, sampling, args.seed),
            Ledger(args.ledger or f"{args.output}.ledger", args.shard),
            [order[i : i + size] for i in range(0, len(order), size)],
            f"generate {args.version} {args.shard}",
        )
        results = [answered(job, state, policy, engine.tokenizer) for job, state in zip(jobs, states)]
    conserve("generate", len(jobs), len(results), 0)
    write_pickle(args.output, results)
    sampled = sum(sum(state["mask"]) for state in states)
    write_manifest(
        args.output,
        [args.model, *([args.shard_file] if args.shard_file else [])],
        settings | {"version": args.version, "template": args.template, "seed": args.seed},
        prompts=len(records),
        rows=len(results),
        policy=policy,
        engine=engine.version,
    )
    write_usage(args.output, seconds=time.time() - started, sampled_tokens=sampled)
    say(f"{args.output}: {len(results)} answers to {len(records)} prompts, {sampled} sampled tokens")


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
    }


if __name__ == "__main__":
    run(main)
