"""Measure what synthetic rows teach, and what they give away, beside another table. Needs scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from workflow_scripts.tasks.tabular.schemas import Row, Schema, TableTask, as_text
from workflow_scripts.tasks.tabular.tables import encoder, frame

# The measure of gradient boosting that a round is judged by.
MAIN: dict[TableTask, str] = {"classification": "mcc", "regression": "r2"}


# ---------------------------------------------------------------- what rows teach


def trained_and_tested(train: Sequence[Row], test: Sequence[Row], schema: Schema) -> dict[str, dict[str, float]]:
    """Return the measures on `test` of models trained on `train`, by the model's name.

    Rows with one label only, or no rows, teach one constant answer.
    """
    truth = [row[schema.target] for row in test]
    is_constant = len({row[schema.target] for row in train}) < 2
    measures = {}

    for name, learner in _learners(schema).items():
        if is_constant:
            predictions = _constant_predictions(train, len(test), schema)
        else:
            predictions = _predictions(learner, train, test, schema)
        measures[name] = _measures(truth, predictions, schema)

    return measures


def _learners(schema: Schema) -> dict[str, Any]:
    from sklearn import ensemble, linear_model

    if schema.task == "classification":
        return {
            "gradient_boosting": ensemble.GradientBoostingClassifier(random_state=0),
            "logistic_regression": linear_model.LogisticRegression(max_iter=1000),
        }
    return {
        "gradient_boosting": ensemble.GradientBoostingRegressor(random_state=0),
        "linear_regression": linear_model.Ridge(),
    }


def _predictions(learner: Any, train: Sequence[Row], test: Sequence[Row], schema: Schema) -> Any:
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(encoder(schema, schema.features), learner)
    model.fit(frame(train, schema, schema.features), [row[schema.target] for row in train])
    return model.predict(frame(test, schema, schema.features))


def _constant_predictions(train: Sequence[Row], count: int, schema: Schema) -> Any:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    default = schema.labels[0] if schema.labels else 0.0
    value = train[0][schema.target] if train else default
    dummy = DummyClassifier if schema.task == "classification" else DummyRegressor
    model = dummy(strategy="constant", constant=value).fit([[0]], [value])
    return model.predict([[0]] * count)


def _measures(truth: Sequence[Any], predictions: Any, schema: Schema) -> dict[str, float]:
    from sklearn import metrics

    if schema.task == "regression":
        return {
            "r2": float(metrics.r2_score(truth, predictions)),
            "mae": float(metrics.mean_absolute_error(truth, predictions)),
        }
    return {
        "accuracy": float(metrics.accuracy_score(truth, predictions)),
        "macro_f1": float(metrics.f1_score(truth, predictions, average="macro", zero_division=0)),  # type: ignore[arg-type]
        "mcc": float(metrics.matthews_corrcoef(truth, predictions)),
    }


# ---------------------------------------------------------------- how near rows are to real ones


def distances(synthetic: Sequence[Row], real: Sequence[Row], schema: Schema) -> dict[str, float]:
    """Return the distance of each column's distributions, from 0 to 1.

    For numbers that is the statistic of Kolmogorov and Smirnov, for texts the total variation.
    """
    from scipy.stats import ks_2samp

    left = frame(synthetic, schema)
    right = frame(real, schema)
    result = {}

    for column in schema.columns:
        a = left[column.name].dropna()
        b = right[column.name].dropna()
        if a.empty or b.empty:
            result[column.name] = float(len(a) != len(b))
        elif column.is_numeric:
            ks_test: Any = ks_2samp(a, b, method="asymp")
            result[column.name] = float(ks_test.statistic)
        else:
            shares_a = a.value_counts(normalize=True)
            shares_b = b.value_counts(normalize=True)
            result[column.name] = float(shares_a.sub(shares_b, fill_value=0).abs().sum() / 2)

    return result


def compare(synthetic: Sequence[Row], train: Sequence[Row], test: Sequence[Row], schema: Schema) -> dict[str, float]:
    """Return how like the training rows the synthetic rows are, as vectors that are scaled by the training rows.

    Returns:
        correlation_difference: mean absolute difference between the correlations of all pairs of columns.
        nearest_distance: median Euclidean distance to the nearest training row.
        nearest_distance_test: the same of the real test rows.
        copies: share of rows that equal a training row.
    """
    space = encoder(schema, schema.names).fit(frame(train, schema))
    known = space.transform(frame(train, schema))
    values = space.transform(frame(synthetic, schema))
    of_test = space.transform(frame(test, schema))
    texts = {as_text(row) for row in train}

    return {
        "correlation_difference": float(np.mean(np.abs(_correlations(values) - _correlations(known)))),
        "nearest_distance": float(np.median(_nearest_distances(values, known))),
        "nearest_distance_test": float(np.median(_nearest_distances(of_test, known))),
        "copies": sum(as_text(row) in texts for row in synthetic) / len(synthetic),
    }


def _nearest_distances(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of each vector to the nearest of the known ones, [rows]."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=1).fit(known).kneighbors(values)[0][:, 0]


def _correlations(values: np.ndarray) -> np.ndarray:
    """Return the correlations of all pairs of columns, [pairs]; 0 where a column is constant."""
    count = values.shape[1]
    if count < 2:
        return np.zeros(1)
    if len(values) < 2:
        return np.zeros(count * (count - 1) // 2)

    with np.errstate(all="ignore"):
        matrix = np.corrcoef(values, rowvar=False)
    return np.nan_to_num(matrix)[np.triu_indices(count, 1)]
