"""Collect the items that can be recommended, with the vectors that utterances are compared with.

Items come from a file (`recommend.catalogue`), from the made-up world, or from the titles that the frozen prompts
mention. Training never sees the catalogue: it belongs to the environment.

    python -m workflow_scripts.tasks.recommend.catalogue --prompts runs/recommend-tiny/prompts/*.parquet \\
        --invented --embedder tfidf --output /tmp/catalogue.pkl
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, progress, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.recommend import invented
from workflow_scripts.tasks.recommend.items import Encoder, Item, make_item, read_items
from workflow_scripts.tasks.recommend.settings import Grounding

BATCH = 64  # texts that are embedded together


def mentioned_items(prompts: Iterable[dict[str, Any]]) -> list[Item]:
    """Return an item for each title that prompts mention, sorted by title."""
    titles = {title for prompt in prompts for title in prompt["mentioned"]}
    return [make_item(title) for title in sorted(titles)]


def vectors_of(items: list[Item], embedder: str) -> np.ndarray:
    """Return the vectors of items by a model: [items, width], float32."""
    encoder = Encoder(embedder)
    texts = [item["text"] for item in items]
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    bar = progress(batches, total=len(batches), desc="catalogue", unit="batch")
    return np.concatenate([encoder.encode(batch) for batch in bar])


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--prompts", required=True, nargs="+", help="the frozen splits (.parquet)")
    parser.add_argument("--file", help="a file of items with `title`, in place of what the prompts mention")
    parser.add_argument("--invented", action="store_true", help="the prompts are made up: take the made-up films")
    parser.add_argument("--embedder", help="recommend.grounding.embedder (default: none)")
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

    needs_model = Grounding(embedder=args.embedder).needs_model
    vectors = vectors_of(items, args.embedder) if needs_model else None
    write_pickle(args.output, {"items": items, "embedder": args.embedder, "vectors": vectors})

    sources = [*args.prompts, *filter(None, [args.file])]
    write_manifest(args.output, sources, {"embedder": args.embedder}, items=len(items))
    print(f"{len(items)} items, embedded by {args.embedder or 'nothing'}")


if __name__ == "__main__":
    run(main)
