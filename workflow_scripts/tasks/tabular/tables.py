"""Rows among rows: their likeness, the anchors that stand for them, and how they are shared out. Needs scikit-learn."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest, shard_of
from workflow_scripts.tasks.tabular.schemas import Row, Schema, convert

BLOCK = 1000  # rows whose likeness to all others is held at a time
SIMILAR = 4  # most similar rows in a prompt, beside the least similar one


def frame(rows: Sequence[Row], schema: Schema, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows as columns of float or object; what is missing is NaN."""
    columns = columns or [column.name for column in schema.columns]
    table = pd.DataFrame(list(rows), columns=columns)
    for name in columns:
        numeric = schema.column(name).type in ("integer", "number")
        table[name] = (
            table[name].astype(float) if numeric else table[name].astype(object).where(table[name].notna(), None)
        )
    return table


def encoder(schema: Schema, columns: Sequence[str]):
    """Numbers z-scored (missing: the mean), categories one-hot (missing: one of its own; unseen: none).

    Free text is left out.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in columns if schema.column(name).type in ("integer", "number")]
    labels = [name for name in columns if schema.column(name).type == "category"]
    if not numbers + labels:
        raise BadInput(f"{schema.name}: all columns are free text, so rows cannot be compared; give types in its YAML")
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    fill = SimpleImputer(strategy="constant", fill_value="missing", missing_values=None, keep_empty_features=True)
    return make_column_transformer(
        (make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()), numbers),
        (make_pipeline(fill, hot), labels),
    )


def encoded(rows: Sequence[Row], schema: Schema) -> np.ndarray:
    """[rows, features] of all columns, the target too."""
    names = [column.name for column in schema.columns]
    with np.errstate(over="ignore", invalid="ignore"):
        found = encoder(schema, names).fit_transform(frame(rows, schema))
    if not np.isfinite(found).all():
        raise BadInput(f"{schema.name}: has numbers too large to be compared; give the column another unit")
    return found


def similar(rows: Sequence[Row], schema: Schema, count: int = SIMILAR) -> Iterator[tuple[list[int], int]]:
    """For each row, the places of the `count` most similar others and of the least similar one, by cosine.

    Rows equal to it are no examples for it: it would be a copy.
    """
    values = encoded(rows, schema)
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
    same = np.unique([digest(row) for row in rows], return_inverse=True)[1]
    if len(set(same)) <= count + 1:
        raise BadInput(
            f"{schema.name}: {len(set(same))} different rows; a prompt needs {count + 1} beside the one asked"
        )
    for start in range(0, len(rows), BLOCK):
        for place, likeness in enumerate(values[start : start + BLOCK] @ values.T, start):
            likeness[same == same[place]] = np.nan
            order = np.argsort(-likeness, kind="stable")  # NaN comes last
            order = order[: int((~np.isnan(likeness)).sum())]
            first = order[np.sort(np.unique(same[order], return_index=True)[1])]  # of equal rows, one
            yield first[:count].tolist(), int(first[-1])


def clusters(rows: Sequence[Row], schema: Schema, count: int, seed: int) -> tuple[list[int], np.ndarray]:
    """(places of the real rows nearest to the centres of `count` clusters, each row's cluster), by KMeans."""
    from sklearn.cluster import KMeans

    values = encoded(rows, schema)
    if count > (distinct := len(np.unique(values, axis=0))):
        raise BadInput(f"tabular.num_clusters: {count} asked, {schema.name} has {distinct} different rows")
    found = KMeans(n_clusters=count, random_state=seed, n_init=10).fit(values)
    nearest = np.argsort(found.transform(values), axis=0, kind="stable")
    chosen: list[int] = []
    for column in nearest.T:  # of two centres with one nearest row, the second takes its next
        chosen.append(int(next(place for place in column if place not in chosen)))
    return chosen, found.labels_


def shared_out(rows: Sequence[Row], schema: Schema, clients: int, alpha: float, seed: int) -> list[list[int]]:
    """Places of each client's rows: of each label (or quarter of a quantity), shares drawn from Dirichlet(alpha).

    Shares are of rows and add up: each row has one client, and each client has a row. BadInput with too few rows.
    """
    if clients > len(rows):
        raise BadInput(f"tabular.clients: {clients} asked, {schema.name} has {len(rows)} rows; each needs one")
    rng, table = np.random.default_rng(seed), frame(rows, schema)[schema.target]
    groups = table
    if schema.task == "regression":
        groups = pd.qcut(table, 4, labels=False, duplicates="drop").fillna(0)  # equal quantities have no quarters
    parts: list[list[int]] = [[] for _ in range(clients)]
    for _, members in sorted(table.groupby(groups.astype(str)).groups.items()):
        places = rng.permutation(np.asarray(members))
        ends = np.round(np.cumsum(rng.dirichlet([alpha] * clients)) * len(places)).astype(int)
        for part, start, end in zip(parts, [0, *ends[:-1]], ends):
            part += places[start:end].tolist()
    for part in parts:
        if not part:  # a row of the client that has most
            part.append(max(parts, key=len).pop())
    return [sorted(part) for part in parts]


def candidates(schema: Schema, rows: Sequence[Row]) -> list[str]:
    """What a task model chooses among, as text: the labels, or ten quantiles of a quantity (5 %, 15 % … 95 %)."""
    if schema.task == "classification":
        return list(schema.labels)
    column = schema.column(schema.target)
    values = np.quantile([row[column.name] for row in rows], np.arange(0.05, 1, 0.1))
    rounded = [round(float(value), column.decimals) for value in values]
    return list(dict.fromkeys(str(convert(str(value), column, within=False)) for value in rounded))


def spread(schema: Schema, rows: Sequence[Row]) -> float:
    """What errors of a quantity are measured in: the training rows' standard deviation (1 for labels)."""
    if schema.task == "classification":
        return 1.0
    return float(np.std([row[schema.target] for row in rows])) or 1.0


def fold_of(row: Row) -> int:
    """0 or 1, by the row's content, so that equal rows are in one fold in every round."""
    return shard_of(digest(row), 2)
