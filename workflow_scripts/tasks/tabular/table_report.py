"""What a checkpoint's rows are worth: the figures of a round in the tabular recipe, and a plot of them.

valid, statuses    of the answers to the eval prompts
tstr               models trained on the synthetic rows, tested on real ones (MCC, or R², of gradient boosting), beside
                   models trained on real rows (`real`) and on rows drawn from the prompts' examples (`bootstrap`)
copies             share of valid rows that are rows of the training table; `dropped` ones teach no model here
columns, correlation_difference, nearest_distance    see core/table_metrics.py
"""

import json
import random
from pathlib import Path

from workflow_scripts.core import table_metrics as metrics
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.core.running.plots import plotted
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular import summarise


def bootstrap(records: list[dict], train: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows drawn from the examples that the prompts show: what the prompts alone are worth."""
    examples = [place for record in records for place in json.loads(record["correct"])["examples"]]
    return [train[place] for place in random.Random(f"{seed}.bootstrap").choices(examples, k=count)]


def worth(synthetic: list[Row], drawn: list[Row], train: list[Row], test: list[Row], schema: Schema) -> dict:
    """{tstr, by_model: {synthetic, real, bootstrap: {learner: figures}}}"""
    sources = {"synthetic": synthetic, "real": train, "bootstrap": drawn}
    by_model = {name: metrics.trained_and_tested(rows, test, schema) for name, rows in sources.items()}
    main = {name: found["gradient_boosting"][metrics.MAIN[schema.task]] for name, found in by_model.items()}
    return {"tstr": main["synthetic"], "real": main["real"], "bootstrap": main["bootstrap"], "by_model": by_model}


def plot(found: dict, label: str, path: str) -> None:
    bars = {
        "answers by status": found["statuses"],
        f"gradient boosting on real rows, {label}": {
            "synthetic": found["tstr"], "real": found["real"], "prompts' rows": found["bootstrap"],
        },
        "distance of columns": found["columns"],
        "distance to the nearest training row": {
            "synthetic": found["nearest_distance"], "test rows": found["nearest_distance_test"],
        },
    }  # fmt: skip
    with plotted(path, len(bars), width=4.5) as axes:
        for axis, (title, values) in zip(axes, bars.items()):
            axis.barh(list(values)[::-1], [value or 0 for value in values.values()][::-1])
            axis.set(title=title)
            axis.grid(alpha=0.3, axis="x")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded answers to the eval prompts")
    parser.add_argument("--tables", required=True, help="folder of the data set, as split_tables wrote it")
    parser.add_argument(
        "--anchors", help="the .csv of anchors, where they are test rows: they are left out of the test"
    )
    parser.add_argument("--copies", choices=("drop", "keep"), default="drop", help="whether copies teach")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--round", type=int, required=True, help="of the checkpoint that answered")
    parser.add_argument("--plot", required=True, help="the .svg to write")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()
    records = [record for path in args.results for record in read_records(path)]
    folder = Path(args.tables)
    schema = read_schema(folder / "schema.json")
    train, test = (read_table(schema, folder / f"{split}.csv") for split in ("train", "test"))
    if args.anchors:
        taken = {digest(row) for row in read_table(schema, args.anchors)}
        test = [row for row in test if digest(row) not in taken]
    if not test:
        raise BadInput(f"{folder}/test.csv: no rows are left to test on")
    rows, known = [record["row"] for record in records if record["row"]], {as_text(row) for row in train}
    fresh = [row for row in rows if args.copies == "keep" or as_text(row) not in known]
    found = summarise(records) | worth(
        fresh, bootstrap(records, train, len(fresh) or len(records), args.seed), train, test, schema
    )
    empty = {"correlation_difference": None, "nearest_distance": None, "nearest_distance_test": None, "copies": 0.0}
    found |= metrics.compared(rows, train, test, schema) if rows else empty
    found |= {"columns": metrics.distances(rows, train, schema), "different": len({as_text(row) for row in rows})}
    found |= {"rows": len(rows), "dropped": len(rows) - len(fresh), "tested": len(test)}
    if not fresh:
        say(f"round {args.round}: no valid rows that are no copies: models learn one constant answer")
    plot(found, metrics.MAIN[schema.task], args.plot)
    sources = [*args.results, *(folder / name for name in ("schema.json", "train.csv", "test.csv"))]
    inputs = {path: content_digest(path) for path in [*sources, *filter(None, [args.anchors])]}
    write_json(args.output, {"round": args.round} | found | {"inputs": {str(k): v for k, v in inputs.items()}})
    print(
        f"round {args.round}: {found['valid']:.1%} of {len(records)} answers are rows, {found['copies']:.1%} of them "
        f"copies; trained on them {found['tstr']:.3f}, on real rows {found['real']:.3f}, "
        f"on the prompts' {found['bootstrap']:.3f}"
    )


if __name__ == "__main__":
    run(main)
