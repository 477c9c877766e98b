"""A teacher recommends in dialogues with the seeker: what the cold start learns from, or, on a test split, how good the
teacher is.

Teacher and seeker are scripts or endpoints; what they say is paid for once (ledger and budget). Written are, one JSON
line each: id, given_dialog, generated_dialog, target_items, rec_success, hit_ratio (of all dialogues up to here),
rec_names (the targets), topk_names. Dialogues that an endpoint spoilt are in OUTPUT.rejects.jsonl. By hand:

    python -m workflow_scripts.explore --task recommend --prompts runs/recommend-tiny/prompts/eval.parquet \\
        --catalogue runs/recommend-tiny/catalogue/items.pkl --environment '{"explore": {}}' --output /tmp/teacher.jsonl
"""

import json
from contextlib import closing
from itertools import islice

from workflow_scripts import tasks
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.config.load import settings_help
from workflow_scripts.tasks.recommend.settings import Recommend
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.manifest import write_manifest, write_usage
from workflow_scripts.core.templates import as_messages
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_rejects
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.config.sections import Generate, without_endpoint
from workflow_scripts.tasks.recommend import players
from workflow_scripts.engines.conversation import converse_in_text

TOP = 10  # names in a transcript


def transcripts(jobs: list[dict], states: list[dict], environment) -> tuple[list[dict], list[dict]]:
    """(dialogues, rejects with a reason)."""
    found, rejects, hits = [], [], 0
    for job, state in zip(jobs, states):
        record, given = job["record"], json.loads(job["record"]["question"])["dialog"]
        line = {"id": record["id"], "given_dialog": given, "generated_dialog": state["turns"]}
        if state["rejected"]:
            rejects.append(line | {"reason": state["rejected"]})
            continue
        targets, last = json.loads(record["answer"]), state["turns"][-1]["content"]
        judged = environment.judge(state["turns"], targets)
        hits += judged["success"]
        top = environment.catalogue.ranking(last)[:TOP] if environment.catalogue.recommends(last) else []
        line |= {"target_items": targets, "rec_success": judged["success"], "rec_names": targets}
        line |= {"hit_ratio": hits / (len(found) + 1), "interactions": judged["interactions"], "ranks": judged["ranks"]}
        found.append(line | {"topk_names": [environment.catalogue.items[number]["title"] for number in top]})
    return found, rejects


def asked(prompts: str, task, start: int, end: int | None) -> list[dict]:
    """The dialogues from `start` to `end`, as the teacher gets them; BadInput if there are none."""
    jobs = []
    for record in islice(read_records(prompts), start, end):
        messages = as_messages(task.requests(record["question"], "auto")["auto"])
        jobs.append({"uid": record["id"], "record": record, "messages": messages})
    if not jobs:
        raise BadInput(f"{prompts}: recommend.explore.start {start} leaves no dialogue")
    return jobs


def read_arguments():
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--catalogue", required=True, help="what the stage catalogue wrote (.pkl)")
    parser.add_argument("--environment", required=True, help=settings_help("recommend"))
    parser.add_argument(
        "--settings", default="{}", help="the config's `generate` section: `pool` is the teacher's sampling"
    )
    parser.add_argument("--seed", default="0", help="of what is drawn")
    parser.add_argument("--teacher", default="{}", help="keys of the teacher's `openai` that no result depends on")
    parser.add_argument("--seeker", default="{}", help="keys of the seeker's `openai` that no result depends on")
    parser.add_argument("--requests", help="folder of the teacher's paid requests; beside the output by default")
    parser.add_argument("--seeker-requests", help="the same of the seeker")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    task = tasks.load(args.task)
    given = Recommend.model_validate_json(args.environment).model_dump(mode="json")
    sampling = Generate.model_validate_json(args.settings).model_dump(mode="json")["pool"]
    explore, ledgers = given["explore"], {}
    if not explore:
        raise BadInput("--environment: recommend.explore says who the teacher is; give it")
    parts = (("teacher", explore["teacher"], args.teacher, args.requests),)
    parts += (("seeker", given["seeker"], args.seeker, args.seeker_requests),)
    for name, player, limits, folder in parts:
        if player["openai"]:
            player["openai"] |= json.loads(limits)
            ledgers[name] = Ledger(folder or f"{args.output}.{name}_requests", "1_0")
    drawn = sampling | {key: explore["teacher"][key] for key in ("temperature", "top_p")}
    with closing(task.environment(given, args.catalogue, "explore", ledgers.get("seeker"))) as environment:
        hired = (
            explore["teacher"],
            drawn,
            environment.catalogue,
            given["list_length"],
            ledgers.get("teacher"),
            "teacher",
        )
        with closing(players.teacher(*hired)) as engine:
            jobs = asked(args.prompts, task, explore["start"], explore["end"])
            states = converse_in_text(jobs, engine, task, environment, sampling, args.seed)
        found, rejects = transcripts(jobs, states, environment)
    conserve("explore", len(jobs), len(found), len(rejects))
    publish(args, given, engine, found, rejects)


def publish(args, given: dict, engine, found: list[dict], rejects: list[dict]) -> None:
    write_jsonl(args.output, found)
    write_rejects(args.output, rejects)
    success = sum(line["rec_success"] for line in found)
    counts = {"rows": len(found), "successful": success, "rejects": len(rejects)}
    settings = without_endpoint(given) | {"seed": args.seed}
    write_manifest(args.output, [args.prompts, args.catalogue], settings, **counts)
    write_usage(args.output, **getattr(engine, "usage", {}))
    if rejects:
        say(f"{len(rejects)} rejects, the first: {rejects[0]['reason']}")
    turns = sum(line["interactions"] for line in found) / max(1, len(found))
    print(f"{len(found)} dialogues, success {success / max(1, len(found)):.1%}, {turns:.2f} interactions")


if __name__ == "__main__":
    run(main)
