"""Write the successful lists of a teacher's dialogues anew: hits first, no item twice, filled up from the grounding.

Nobody said these lists, so they are learnt by likelihood alone, as everything of the teacher's. By hand:

    python -m workflow_scripts.rerank --explored runs/recommend-tiny/explore/recommend-tiny.jsonl \\
        --catalogue runs/recommend-tiny/catalogue/items.pkl --output /tmp/reranked.jsonl
"""

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.config.load import settings_help
from workflow_scripts.tasks.recommend.settings import Recommend
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.tasks.recommend.environment import Environment


def reranked(line: dict, environment: Environment) -> dict:
    """The dialogue with its right list rewritten; others as they are."""
    turns = line["generated_dialog"]
    text = environment.judge(turns, line["target_items"])["reranked"]
    if not text or turns[-1]["role"] != "assistant":
        return line
    return line | {"generated_dialog": [*turns[:-1], turns[-1] | {"content": text}]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--explored", required=True, help="what the stage explore wrote (.jsonl)")
    parser.add_argument("--catalogue", required=True, help="what the stage catalogue wrote (.pkl)")
    parser.add_argument("--environment", default="{}", help=settings_help("recommend"))
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()
    settings = Recommend.model_validate_json(args.environment).model_dump(mode="json")
    environment = Environment(settings, args.catalogue)
    lines = list(read_records(args.explored))
    found = [reranked(line, environment) for line in lines]
    conserve("rerank", len(lines), len(found), 0)
    changed = sum(one["generated_dialog"] != line["generated_dialog"] for one, line in zip(found, lines))
    write_jsonl(args.output, found)
    used = {key: settings[key] for key in ("grounding", "list_length")}
    write_manifest(args.output, [args.explored, args.catalogue], used, rows=len(found), changed=changed)
    print(f"{len(found)} dialogues, {changed} lists rewritten")


if __name__ == "__main__":
    run(main)
