"""Rows among rows: how alike they are, anchors that stand for them, and shares of them. Needs scikit-learn."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest, shard_of
from workflow_scripts.tasks.tabular.schemas import Row, Schema, convert

BLOCK = 1000  # rows whose similarity to all others is held in memory at a time
SIMILAR = 4  # most similar rows in a prompt, beside the least similar one


# ---------------------------------------------------------------- rows as numbers


def frame(rows: Sequence[Row], schema: Schema, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return rows as a DataFrame with columns of float or object. A missing number is NaN, a missing text None."""
    names = list(columns or schema.names)
    table = pd.DataFrame(list(rows), columns=names)

    for name in names:
        values = table[name]
        if schema.column(name).is_numeric:
            table[name] = values.astype(float)
        else:
            table[name] = values.astype(object).where(values.notna(), None)

    return table


def encoder(schema: Schema, columns: Sequence[str]) -> Any:
    """Return a transformer of scikit-learn, not fitted yet, that makes vectors of rows. Free text is left out.

    Numbers are z-scored, and a missing one counts as the mean. Categories are one-hot: a missing one is a category of
    its own, and an unseen one is a vector of zeros.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in columns if schema.column(name).is_numeric]
    labels = [name for name in columns if schema.column(name).type == "category"]
    if not numbers + labels:
        raise BadInput(
            f"{schema.name}: all columns are free text, so rows cannot be compared; give types in the YAML file beside "
            "the table"
        )

    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    fill = SimpleImputer(
        strategy="constant",
        fill_value="missing",
        missing_values=None,  # type: ignore[arg-type]
        keep_empty_features=True,
    )
    return make_column_transformer(
        (make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()), numbers),
        (make_pipeline(fill, one_hot), labels),
    )


def encoded(rows: Sequence[Row], schema: Schema) -> np.ndarray:
    """Return the vectors of rows, [rows, features], over all columns including the target."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = encoder(schema, schema.names).fit_transform(frame(rows, schema))

    if not np.isfinite(values).all():
        raise BadInput(f"{schema.name}: some numbers are too large to be compared; give their column another unit")

    return values


# ---------------------------------------------------------------- examples and anchors


def similar(rows: Sequence[Row], schema: Schema, count: int = SIMILAR) -> Iterator[tuple[list[int], int]]:
    """Yield for each row the positions of the `count` most similar other rows, and that of the least similar one.

    Rows are compared by the cosine of their vectors. Rows that equal a row are no examples for it, since an answer
    would only repeat them. Of several equal rows, one counts.
    """
    values = encoded(rows, schema)
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
    content = np.unique([digest(row) for row in rows], return_inverse=True)[1]  # equal numbers for equal rows

    if len(set(content)) <= count + 1:
        raise BadInput(
            f"{schema.name}: {len(set(content))} different rows; a prompt needs {count + 1} beside the one it asks for"
        )

    for start in range(0, len(rows), BLOCK):
        for position, similarity in enumerate(values[start : start + BLOCK] @ values.T, start):
            similarity[content == content[position]] = np.nan
            others = int((~np.isnan(similarity)).sum())
            order = np.argsort(-similarity, kind="stable")[:others]  # NaN comes last
            firsts = np.unique(content[order], return_index=True)[1]
            distinct = order[np.sort(firsts)]
            yield distinct[:count].tolist(), int(distinct[-1])


def clusters(rows: Sequence[Row], schema: Schema, count: int, seed: int) -> tuple[list[int], np.ndarray]:
    """Divide rows by KMeans.

    Returns:
        The positions of the `count` rows nearest to the clusters' centres, all of them different, and the cluster of
        each row, [rows].
    """
    from sklearn.cluster import KMeans

    values = encoded(rows, schema)
    distinct = len(np.unique(values, axis=0))
    if count > distinct:
        raise BadInput(f"tabular.num_clusters: {count} requested, but {schema.name} has {distinct} different rows")

    fitted: Any = KMeans(n_clusters=count, random_state=seed, n_init=10).fit(values)  # type: ignore[arg-type]
    by_distance = np.argsort(fitted.transform(values), axis=0, kind="stable")  # [rows, clusters]
    nearest: list[int] = []
    for column in by_distance.T:  # if two centres share their nearest row, the second takes its next one
        nearest.append(int(next(position for position in column if position not in nearest)))

    return nearest, fitted.labels_


# ---------------------------------------------------------------- shares


def shared_out(
    rows: Sequence[Row], schema: Schema, clients: int, alpha: float | None, shares_seed: int, seed: str
) -> list[list[int]]:
    """Return the positions of each client's rows: of each label, shares that are drawn from Dirichlet(alpha).

    Without alpha, all clients have equal shares of each label. A quantity counts by its quarters. Each row belongs to
    one client, and each client has a row. Raise BadInput if there are too few rows for that.

    Args:
        shares_seed: determines the shares, so that they are the same for other rows of the table.
        seed: determines which rows they are.
    """
    if clients > len(rows):
        raise BadInput(f"tabular.clients: {clients} requested, but {schema.name} has {len(rows)} rows; each needs one")

    draw_shares = np.random.default_rng(shares_seed)
    draw_rows = np.random.default_rng(int(digest(seed), 16))
    targets = frame(rows, schema)[schema.target]
    groups: Any = targets
    names = list(schema.labels)
    if schema.task == "regression":
        quarters: Any = pd.qcut(targets, 4, labels=False, duplicates="drop")
        groups = quarters.fillna(0).astype(int)  # equal quantities have no quarters
        names = list("0123")

    parts: list[list[int]] = [[] for _ in range(clients)]
    members_of = targets.groupby(groups.astype(str)).groups
    for name in names:
        shares = draw_shares.dirichlet([alpha] * clients) if alpha else np.full(clients, 1 / clients)
        positions = draw_rows.permutation(np.asarray(members_of.get(name, []), dtype=int))
        ends = np.round(np.cumsum(shares) * len(positions)).astype(int)
        for part, start, end in zip(parts, [0, *ends[:-1]], ends):
            part += positions[start:end].tolist()

    for part in parts:
        if not part:  # it takes a row of the client that has most
            part.append(max(parts, key=len).pop())

    return [sorted(part) for part in parts]


def fold_of(row: Row) -> int:
    """Return the fold of a row, 0 or 1, by its content, so that equal rows are in one fold in all rounds."""
    return shard_of(digest(row), 2)


# ---------------------------------------------------------------- answers of task models


def candidates_of(schema: Schema, rows: Sequence[Row]) -> list[str]:
    """Return the answers that a task model chooses among: labels, or ten quantiles of a quantity (5 %, 15 % … 95 %)."""
    if schema.task == "classification":
        return list(schema.labels)

    column = schema.column(schema.target)
    quantiles = np.quantile([row[column.name] for row in rows], np.arange(0.05, 1, 0.1))  # type: ignore[arg-type]
    candidates = []
    for quantile in quantiles:
        rounded = str(round(float(quantile), column.decimals))
        candidates.append(str(convert(rounded, column, within=False)))

    return list(dict.fromkeys(candidates))


def spread_of(schema: Schema, rows: Sequence[Row]) -> float:
    """Return the unit of errors: the standard deviation of a quantity in the training rows; 1 for labels."""
    if schema.task == "classification":
        return 1.0
    return float(np.std([row[schema.target] for row in rows])) or 1.0  # type: ignore[arg-type]


def label_shares(schema: Schema, rows: Sequence[Row]) -> dict[str, float]:
    """Return the share of each label among rows; nothing for a quantity."""
    if schema.task == "regression":
        return {}

    counts = Counter(str(row[schema.target]) for row in rows)
    return {label: counts[label] / max(1, len(rows)) for label in schema.labels}
