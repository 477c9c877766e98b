"""Rewrite the successful lists of a teacher's dialogues: hits first, no item twice, filled up from the ranking.

Nobody said these lists. The cold start learns them by likelihood, as all that the teacher said.

    python -m workflow_scripts.tasks.recommend.rerank --explored runs/recommend-tiny/explore/recommend-tiny.jsonl \\
        --catalogue runs/recommend-tiny/catalogue/items.pkl --settings '{"list_length": 3}' --output /tmp/reranked.jsonl
"""

import json
from contextlib import closing
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, add_endpoint_arguments, arguments, merged, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.recommend.items import Catalogue, open_catalogue
from workflow_scripts.tasks.recommend.outcomes import better_hit, outcome_of, utterances
from workflow_scripts.tasks.recommend.settings import Settings


def reranked(line: dict[str, Any], catalogue: Catalogue, length: int) -> dict[str, Any]:
    """Return a dialogue with its right list rewritten; other dialogues as they are."""
    turns = line["generated_dialog"]
    targets = line["target_items"]
    text = better_hit(catalogue, turns, targets, outcome_of(catalogue, turns, targets), length)

    if not text or turns[-1]["role"] != "assistant":
        return line
    return line | {"generated_dialog": [*turns[:-1], turns[-1] | {"content": text}]}


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--explored", required=True, help="the teacher's dialogues (.jsonl)")
    parser.add_argument("--catalogue", required=True, help="the catalogue of items (.pkl)")
    parser.add_argument(
        "--settings", type=json.loads, default="{}", help=settings_help("recommend", "grounding", "list_length")
    )
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    endpoints = args.endpoints.get("task", {})
    settings = Settings.model_validate(merged(args.settings, endpoints))
    options = EnvironmentOptions(endpoints=endpoints, requests=args.requests or f"{args.output}.requests")
    lines = list(read_records(args.explored))

    with closing(open_catalogue(args.catalogue, settings.grounding, options, "rerank")) as catalogue:
        catalogue.prepare([text for line in lines for text in utterances(line["generated_dialog"])])
        results = [reranked(line, catalogue, settings.list_length) for line in lines]
    conserve("rerank", len(lines), len(results), 0)
    changed = sum(after["generated_dialog"] != before["generated_dialog"] for before, after in zip(lines, results))

    write_jsonl(args.output, results)
    inputs = [args.explored, args.catalogue]
    write_manifest(args.output, inputs, args.settings, rows=len(results), changed=changed)
    print(f"{len(results)} dialogues, {changed} lists rewritten")


if __name__ == "__main__":
    run(main)
