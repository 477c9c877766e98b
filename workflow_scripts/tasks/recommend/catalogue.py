"""The items that can be recommended, with the vectors that utterances are compared with.

They come from the file that prompts.catalogue names, from the task's made-up world, or from all titles that the frozen
prompts name. Training never sees it: it belongs to the environment. By hand:

    python -m workflow_scripts.catalogue --task recommend --prompts runs/recommend-tiny/prompts/*.parquet \\
        --settings '{"eval": {"count": {"genre": 10}}}' --output /tmp/catalogue.pkl
"""

from workflow_scripts import tasks
from workflow_scripts.core.running.cli import arguments, progress, run
from workflow_scripts.config.load import settings_help
from workflow_scripts.tasks.recommend.settings import Grounding
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.config.sections import Prompts
from workflow_scripts.tasks.recommend.items import Encoder

BATCH = 64


def vectors_of(items: list[dict], embedder: str | None):
    """[items, width] in float32, or None where no model embeds them."""
    if embedder in (None, "tfidf"):
        return None
    import numpy as np

    encoder, texts = Encoder(embedder), [item["text"] for item in items]
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    return np.concatenate(
        [encoder.encode(one) for one in progress(batches, total=len(batches), desc="catalogue", unit="batch")]
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--prompts", required=True, nargs="+", help="the frozen splits (.parquet)")
    parser.add_argument("--settings", required=True, help=settings_help("prompts"))
    parser.add_argument("--grounding", default="{}", help="the config's `recommend.grounding` section as JSON")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    settings = Prompts.model_validate_json(args.settings).model_dump(mode="json")
    grounding = Grounding.model_validate_json(args.grounding)
    records = [record for path in args.prompts for record in read_records(path)]
    items = tasks.load(args.task).items(settings, records)
    if not items:
        raise BadInput(f"{', '.join(args.prompts)}: no item is named; give a file of them as prompts.catalogue")
    vectors = vectors_of(items, grounding.embedder)
    write_pickle(args.output, {"items": items, "embedder": grounding.embedder, "vectors": vectors})
    sources = [*args.prompts, *filter(None, [settings["catalogue"]])]
    write_manifest(args.output, sources, {"embedder": grounding.embedder}, items=len(items))
    print(f"{len(items)} items, embedded by {grounding.embedder or 'nothing'}")


if __name__ == "__main__":
    run(main)
