"""Let a round's policy answer one shard of the prompts, in the version auto, trigger or eval (or those of a pool).

An answer is a conversation: where the policy stops for the environment (a program to run, another speaker), the
environment's text is appended with mask 0 and the policy goes on. Other conversations go on meanwhile, if the engine
takes requests one by one (rollout/feeding.py). Finished conversations are kept in the ledger. A remote engine lets a
teacher answer in the policy's place: its text is tokenised once, here, and marked `foreign`. Each of its requests is
kept in a ledger of its own, and unusable answers are listed in OUTPUT.rejects.jsonl.

    python -m workflow_scripts.generate --task math --prompts runs/arithmetic/prompts/eval.parquet \\
        --model runs/arithmetic/checkpoints/r0/checkpoint.json --version eval --output /tmp/answers.pkl
"""

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from workflow_scripts import engines, tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Generate, Sampling, settings_of
from workflow_scripts.core.checkpoint import engine_folder, policy_digest
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.formats import existing_answers
from workflow_scripts.core.identity import digest, shard_of
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import Message, Prompt, conserve, read_records
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_endpoint_arguments,
    add_task_arguments,
    add_template_argument,
    arguments,
    merged,
    run,
    say,
    shard,
    task_files,
)
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.launch import claim_gpus
from workflow_scripts.core.running.ledger import Finished, Ledger, Tick, map_records, stream_records
from workflow_scripts.core.running.manifest import content_digest, write_manifest, write_usage
from workflow_scripts.core.running.replicas import REPLICA, Replicas
from workflow_scripts.core.slices import Slicing, slice_of
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.engines import _resident
from workflow_scripts.rollout.environment import Conversation, Environment
from workflow_scripts.rollout.feeding import Play, is_continuous, play_all, play_batch, play_continuously
from workflow_scripts.rollout.loop import Answer, Complete, TextSpeaker, TokenSpeaker, converse, encode_foreign, play
from workflow_scripts.tasks.defaults import EnvironmentOptions

FOREIGN = "foreign"


@dataclass
class Job:
    """One answer to generate."""

    uid: str
    prompt: Prompt
    trigger: str
    request: str | list[Message]  # what the policy is asked
    prompt_text: str
    prompt_tokens: list[int]


def jobs_of(prompt: Prompt, version: str, conversation: Any, template: str, samples: int, tokenizer) -> list[Job]:
    """Return the answers to generate for one prompt: triggers × samples."""
    jobs = []

    for trigger, request in conversation.requests(prompt, version).items():
        prompt_text = render(template, request, tokenizer)
        prompt_tokens = encode_prompt(tokenizer, prompt_text)
        for sample in range(samples):
            uid = f"{prompt['id']}.{trigger}.{sample}"
            jobs.append(Job(uid, prompt, trigger, request, prompt_text, prompt_tokens))

    return jobs


# ---------------------------------------------------------------- the policy, and a teacher in its place


def play_with_policy(
    jobs: list[Job],
    engine: Any,
    environment: Environment,
    args: argparse.Namespace,
    settings: Generate,
    replicas: Replicas,
) -> list[Conversation]:
    """Play all conversations with the policy. Finished ones are kept in the ledger."""
    sampling = getattr(settings, args.version)
    common = determinants(args, settings, engine)
    conversations = {job.uid: Conversation(job.uid, job.prompt) for job in jobs}
    play_one = player(jobs, engine, environment, args, sampling)

    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].prompt_tokens), jobs[i].uid))
    shared: dict[str, Any] = {
        "jobs": [{"uid": job.uid, "prompt_tokens": job.prompt_tokens} for job in jobs],
        "determines": lambda record: [common, record["uid"], record["prompt_tokens"]],
        "ledger": Ledger(args.ledger or f"{args.output}.ledger", args.shard),
        "desc": f"generate {args.version} {args.shard}",
        "team": replicas,
    }

    def feed(uids: list[str], finished: Finished, tick: Tick) -> None:
        chosen = [conversations[uid] for uid in uids]
        play_continuously(chosen, engine, environment, play_one, finished, tick)

    def compute(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        chosen = [conversations[record["uid"]] for record in batch]
        return play_batch(chosen, engine, environment, play_one)

    if is_continuous(engine):
        results = stream_records(feed=feed, order=order, seconds=args.save_seconds, **shared)
    else:
        size = settings.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        results = map_records(compute=compute, batches=batches, **shared)

    return [Conversation(job.uid, job.prompt, **result) for job, result in zip(jobs, results)]


def determinants(args: argparse.Namespace, settings: Generate, engine: Any) -> list[Any]:
    """Return what all answers of this shard depend on, as a JSON value."""
    code = args.code or code_identity(
        "workflow_scripts.generate:main",
        engines.root(settings.engine_of(args.version)),
        tasks.root(args.task, "Conversation"),
    )
    return [
        policy_digest(args.model),
        settings_of(getattr(settings, args.version), "samples", "engine"),
        args.seed,
        args.sandbox,
        engine.version,
        code,
        args.task_settings,
        {name: content_digest(path) for name, path in task_files(args).items()},
    ]


def player(
    jobs: list[Job], engine: Any, environment: Environment, args: argparse.Namespace, sampling: Sampling
) -> Play:
    """Return the function that plays a conversation with the policy and returns what the ledger keeps of it."""
    prompt_tokens = {job.uid: job.prompt_tokens for job in jobs}

    async def play_one(conversation: Conversation, complete: Complete, answer: Answer) -> dict[str, Any]:
        def speaker_of(seed: str) -> TokenSpeaker:
            prompt = prompt_tokens[conversation.uid]
            limits = sampling.max_tokens, sampling.reply_tokens
            return TokenSpeaker(engine, complete, prompt, environment, args.template, seed, *limits)

        played = await play(conversation, speaker_of, environment, answer, sampling.turns, args.seed)
        return {name: getattr(played, name) for name in KEPT}

    return play_one


KEPT = ("tokens", "mask", "logps", "finish", "turns", "rejected", "fault", "draws")  # of a conversation, in the ledger


def play_with_teacher(
    jobs: list[Job],
    engine: Any,
    conversation: Any,
    environment: Environment,
    args: argparse.Namespace,
    settings: Generate,
    tokenizer: Any,
) -> list[Conversation]:
    """Play all conversations with a remote engine, and tokenise what it wrote."""
    sampling = getattr(settings, args.version)
    requests = {job.uid: job.request for job in jobs}

    async def play_one(conversation: Conversation, complete: Complete, answer: Answer) -> Conversation:
        speaker = TextSpeaker(complete, requests[conversation.uid], environment, sampling.max_tokens, args.seed)
        await converse(conversation, speaker, environment, answer, sampling.turns)
        return conversation

    conversations = play_all([Conversation(job.uid, job.prompt) for job in jobs], engine, environment, play_one)
    for finished in conversations:
        if not finished.rejected:
            encode_foreign(finished, conversation.segments(finished.text), environment, tokenizer, args.template)

    return conversations


# ---------------------------------------------------------------- records


def answer_record(job: Job, conversation: Conversation, policy: str, tokenizer) -> dict[str, Any]:
    """Return the record of a finished conversation: the prompt's fields, the answer, and its tokens as sampled."""
    record: dict[str, Any] = {
        **job.prompt,
        "uid": job.uid,
        "trigger": job.trigger,
        "prompt_text": job.prompt_text,
        "answer": tokenizer.decode(conversation.tokens, skip_special_tokens=True),
        "prompt_tokens": job.prompt_tokens,
        "tokens": conversation.tokens,
        "mask": conversation.mask,
        "finish": conversation.finish,
        "sampled_logps": conversation.logps,
        "policy": policy,
    }

    if conversation.turns:
        record["turns"] = conversation.turns
    if conversation.fault:
        record["fault"] = conversation.fault
    if conversation.draws > 1:
        record["draws"] = conversation.draws

    return record


def reject_record(job: Job, conversation: Conversation) -> dict[str, Any]:
    """Return the record of a conversation that cannot be used."""
    said = {"turns": conversation.turns} if conversation.turns else {"text": conversation.text}
    return {"uid": job.uid, "question": job.prompt["question"], **said, "reason": conversation.rejected}


def redraws(answers: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many answers were drawn again for their form, how often in all, and how many are still wrong."""
    again = [answer["draws"] - 1 for answer in answers if "draws" in answer]
    return {"answers": len(again), "draws": sum(again), "wrong": sum("fault" in answer for answer in answers)}


# ---------------------------------------------------------------- the stage


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--model", required=True, help="checkpoint.json of the policy")
    parser.add_argument(
        "--version",
        required=True,
        choices=("auto", "trigger", "eval", "pool"),
        help="how questions are asked and sampled",
    )
    parser.add_argument("--answered", help="a .csv with answers that exist already; their ids need none")
    parser.add_argument("--settings", default="{}", help=settings_help("generate"))
    add_template_argument(parser)
    parser.add_argument("--seed", default="0", help="seed of the round; equal seeds give equal answers")
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument(
        "--slice",
        type=json.loads,
        help="the part of the prompts to answer, as JSON: round, size (prompts per round), seed (default: all prompts)",
    )
    parser.add_argument("--sets", nargs="*", help="the eval sets to answer (default: all)")
    parser.add_argument("--shard-file", help="the shard's digest file, recorded as an input")
    parser.add_argument("--gpus", type=int, help="GPUs that no other job uses meanwhile (default: all visible ones)")
    parser.add_argument(
        "--keep-engine", type=float, default=0.0, help="seconds that the engine stays loaded for further jobs"
    )
    parser.add_argument(
        "--tensor-parallel", type=int, help="GPUs of one replica of the model (default: all visible ones)"
    )
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument(
        "--vllm", type=json.loads, default="{}", help="keys of settings.vllm that no answer depends on, as JSON"
    )
    parser.add_argument("--programs", type=int, help="programs that run at the same time (default: settings.threads)")
    parser.add_argument(
        "--save-seconds", type=float, default=10.0, help="seconds between two entries of finished conversations"
    )
    parser.add_argument("--ledger", help="folder of finished conversations (default: beside the output)")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    return parser.parse_args()


def read_prompts(args: argparse.Namespace) -> list[Prompt]:
    """Return the shard's prompts that need an answer."""
    shards, rank = map(int, args.shard.split("_"))
    prompts = [prompt for prompt in read_records(args.prompts) if shard_of(prompt["id"], shards) == rank]

    if args.sets is not None:
        prompts = [prompt for prompt in prompts if prompt.get("set") in args.sets]

    if args.slice:
        ids = [prompt["id"] for prompt in read_records(args.prompts)]
        chosen = slice_of(ids, Slicing(args.slice["size"], args.slice["seed"]), args.slice["round"])
        prompts = [prompt for prompt in prompts if prompt["id"] in chosen]

    if args.answered:
        answered = existing_answers(args.answered)
        unanswered = [prompt for prompt in prompts if prompt["id"] not in answered]
        say(f"{len(prompts) - len(unanswered)} of {len(prompts)} prompts have an answer in {args.answered}")
        prompts = unanswered

    return prompts  # type: ignore[return-value]


def main() -> None:
    args = parse_arguments()
    started = time.time()
    requests = args.requests or f"{args.output}.requests"
    settings = Generate.model_validate(merged(json.loads(args.settings), args.endpoints.get("generate", {})))
    engine_name = settings.engine_of(args.version)
    sampling = getattr(settings, args.version)
    folder = engine_folder(args.model, settings.dtype)
    prompts = read_prompts(args)

    task_endpoints = args.endpoints.get("task", {})
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    programs = args.programs or settings.threads
    options = EnvironmentOptions(args.sandbox == "on", task_endpoints, requests, args.shard, programs)

    with conversation.environment(args.version, options) as environment:
        common = {"sampling": sampling.model_dump(), "stop": (*environment.stop, *sampling.stop)}
        is_remote = settings.is_remote(args.version)

        if is_remote:
            engine = engines.load(
                engine_name,
                settings=settings.openai.model_dump(mode="json") if settings.openai else {},
                ledger=Ledger(f"{requests}/requests", args.shard),
                purpose=f"generate {args.version} (seed {args.seed})",
                **common,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
            policy = FOREIGN
            replicas = None
        else:
            values = merged(settings.model_dump(mode="json"), {"vllm": args.vllm})
            engine, replicas = load_engine(engine_name, args, folder, values, common)
            tokenizer = engine.tokenizer
            policy = policy_digest(args.model)

        jobs: list[Job] = []
        for prompt in prompts:
            jobs += jobs_of(prompt, args.version, conversation, args.template, sampling.samples, tokenizer)

        if replicas is not None:
            tell_of_room(jobs, engine.window, sampling.max_tokens)
        if replicas is None:
            finished = play_with_teacher(jobs, engine, conversation, environment, args, settings, tokenizer)
        else:
            finished = play_with_policy(jobs, engine, environment, args, settings, replicas)

    pairs = list(zip(jobs, finished))
    rejects = [reject_record(job, conversation) for job, conversation in pairs if conversation.rejected]
    answers = [answer_record(job, played, policy, tokenizer) for job, played in pairs if not played.rejected]
    conserve("generate", len(jobs), len(answers), len(rejects))
    publish(args, settings, engine, policy, len(prompts), answers, rejects, time.time() - started)


def tell_of_room(jobs: list[Job], window: int, max_tokens: int) -> None:
    """Tell how many answers the model's context may cut off, before the first one is sampled."""
    tight = sum(len(job.prompt_tokens) + max_tokens > window for job in jobs)
    if tight:
        longest = max(len(job.prompt_tokens) for job in jobs)
        say(
            f"{tight} of {len(jobs)} answers have less room than max_tokens {max_tokens}: the model's context has "
            f"{window} tokens, and the longest prompt {longest}"
        )


def load_engine(
    name: str, args: argparse.Namespace, folder: str, settings: dict[str, Any], common: dict[str, Any]
) -> tuple[Any, Replicas]:
    """Return the policy's engine, and the replicas of this job that share its work.

    An engine that may stay between jobs is asked in its server, which holds the GPUs. Others are loaded here.
    """
    constants = plugins.constants("engines", name)
    is_whole = args.tensor_parallel in (None, args.gpus)

    if args.keep_engine and "STAYS" in constants and is_whole:
        identity = digest([policy_digest(args.model), code_identity(engines.root(name))])
        own = {key: settings[key] for key in constants["STAYS"]}
        gpus = args.gpus or 0
        engine = _resident.Engine(name, folder, identity, own, seconds=args.keep_engine, gpus=gpus, **common)
        return engine, Replicas(None)

    if args.gpus is not None and REPLICA not in os.environ:
        claim_gpus(args.gpus)
    replicas = Replicas(args.tensor_parallel if constants.get("SPLITS_MODEL") else 1)
    return engines.load(name, model=folder, settings=settings, **common), replicas


def publish(
    args: argparse.Namespace, settings: Generate, engine: Any, policy: str, prompts: int, answers: list[dict[str, Any]],
    rejects: list[dict[str, Any]], seconds: float,
) -> None:  # fmt: skip
    """Write the answers, their manifest, what they cost, and the rejects with their reasons."""
    write_pickle(args.output, answers)
    write_rejects(args.output, rejects)

    unused = {"auto", "trigger", "eval", "pool"} - {args.version}
    used = settings_of(settings, *unused)
    used |= {"version": args.version, "template": args.template, "seed": args.seed, "task": args.task_settings}
    if args.slice:
        used["slice"] = args.slice
    if args.sets is not None:
        used["sets"] = args.sets
    inputs = [args.model, *filter(None, [args.shard_file]), *task_files(args).values()]
    write_manifest(
        args.output,
        inputs,
        used,
        prompts=prompts,
        rows=len(answers),
        rejects=dict(sorted(Counter(reject["reason"].split(":")[0] for reject in rejects).items())),
        finishes=dict(sorted(Counter(answer["finish"] for answer in answers).items())),
        redraws=redraws(answers),
        policy=policy,
        engine=engine.version,
    )

    sampled = sum(sum(answer["mask"]) for answer in answers)
    write_usage(args.output, seconds=seconds, sampled_tokens=sampled, code=args.code, **getattr(engine, "usage", {}))
    note = f", {len(rejects)} rejects" if rejects else ""
    say(f"{args.output}: {len(answers)} answers to {prompts} prompts{note}, {sampled} sampled tokens")


if __name__ == "__main__":
    run(main)
