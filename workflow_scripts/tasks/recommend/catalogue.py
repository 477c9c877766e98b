"""Collect the items that can be recommended, with the vectors that utterances are compared with.

Items come from a file (`recommend.catalogue`), from the made-up world, or from the titles that the frozen prompts
mention. Their vectors come from an encoder, from an embeddings endpoint, or from a file. Training never sees the
catalogue: it belongs to the environment.

    python -m workflow_scripts.tasks.recommend.catalogue --prompts runs/recommend-tiny/prompts/*.parquet \\
        --invented --embedder tfidf --output /tmp/catalogue.pkl
"""

import json
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import numpy as np

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_endpoint_arguments,
    arguments,
    merged,
    progress,
    run,
)
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.recommend import invented
from workflow_scripts.tasks.recommend.embedders import EMBEDDINGS, RemoteEncoder, make_encoder
from workflow_scripts.tasks.recommend.items import Item, make_item, read_items, with_texts
from workflow_scripts.tasks.recommend.settings import Grounding
from workflow_scripts.tasks.recommend.vectors import read_vectors

BATCH = 64  # texts that are embedded together


def mentioned_items(prompts: Iterable[dict[str, Any]]) -> list[Item]:
    """Return an item for each title that prompts mention, sorted by title."""
    titles = {title for prompt in prompts for title in prompt["mentioned"]}
    return [make_item(title) for title in sorted(titles)]


def vectors_of(items: list[Item], grounding: Grounding, requests: str = "") -> np.ndarray | None:
    """Return the vectors of items: [items, width], float32; None if no vectors are compared.

    `requests` is the folder for the ledger of an embeddings endpoint.
    """
    if not grounding.needs_vectors:
        return None
    if grounding.vectors:
        return read_vectors(grounding.vectors, items)

    texts = [item["text"] for item in items]
    ledger = Ledger(f"{requests}/{EMBEDDINGS}", "1_0") if grounding.openai else None
    encoder = make_encoder(grounding, ledger, "embeddings (catalogue)")
    with closing(encoder):
        if isinstance(encoder, RemoteEncoder):
            return encoder.encode(texts)
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        bar = progress(batches, total=len(batches), desc="catalogue", unit="batch")
        return np.concatenate([encoder.encode(batch) for batch in bar])


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--prompts", required=True, nargs="+", help="the frozen splits (.parquet)")
    parser.add_argument("--file", help="a file of items with `title`, in place of what the prompts mention")
    parser.add_argument("--invented", action="store_true", help="the prompts are made up: take the made-up films")
    parser.add_argument("--embedder", help="recommend.grounding.embedder (default: none)")
    parser.add_argument(
        "--grounding",
        type=json.loads,
        default="{}",
        help=settings_help("recommend.grounding", "openai", "vectors", "text"),
    )
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    if args.file:
        items = read_items(args.file)
    elif args.invented:
        items = invented.items()
    else:
        items = mentioned_items(prompt for path in args.prompts for prompt in read_records(path))
    if not items:
        raise BadInput(f"{', '.join(args.prompts)}: no item is mentioned; give a file of items as recommend.catalogue")

    endpoints = args.endpoints.get("task", {}).get("grounding", {})
    values = {"embedder": args.embedder} | args.grounding
    grounding = Grounding.model_validate(merged(values, endpoints))
    if grounding.text:
        items = with_texts(items, grounding.text)
    vectors = vectors_of(items, grounding, args.requests or f"{args.output}.requests")
    write_pickle(args.output, {"items": items, "embedder": grounding.model, "vectors": vectors})

    sources = [*args.prompts, *filter(None, [args.file, grounding.vectors])]
    write_manifest(args.output, sources, values, items=len(items))
    source = f"with the vectors of {grounding.vectors}" if grounding.vectors else f"embedded by {grounding.model}"
    print(f"{len(items)} items, {source}")


if __name__ == "__main__":
    run(main)
