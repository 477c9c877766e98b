"""What synthetic rows are worth, and what they give away: figures of one table beside another. Needs scikit-learn."""

from collections.abc import Sequence

import numpy as np

from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text
from workflow_scripts.tasks.tabular.tables import encoder, frame

MAIN = {"classification": "mcc", "regression": "r2"}  # of the gradient boosting: the figure of a round


def learners(schema: Schema) -> dict:
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


def trained_and_tested(train: Sequence[Row], test: Sequence[Row], schema: Schema) -> dict[str, dict[str, float]]:
    """{learner: figures on `test`} of models trained on `train`; rows with one label alone, or none, teach that one."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.pipeline import make_pipeline

    target, found = schema.target, {}
    truth = [row[target] for row in test]
    constant = len({row[target] for row in train}) < 2
    for name, learner in learners(schema).items():
        if constant:
            value = train[0][target] if train else (schema.labels[0] if schema.labels else 0.0)
            dummy = DummyClassifier if schema.task == "classification" else DummyRegressor
            model = dummy(strategy="constant", constant=value).fit([[0]], [value])
            said = model.predict([[0]] * len(test))
        else:
            model = make_pipeline(encoder(schema, schema.features), learner)
            model.fit(frame(train, schema, schema.features), [row[target] for row in train])
            said = model.predict(frame(test, schema, schema.features))
        found[name] = figures(truth, said, schema)
    return found


def figures(truth: Sequence, said: Sequence, schema: Schema) -> dict[str, float]:
    from sklearn import metrics

    if schema.task == "regression":
        return {"r2": float(metrics.r2_score(truth, said)), "mae": float(metrics.mean_absolute_error(truth, said))}
    return {
        "accuracy": float(metrics.accuracy_score(truth, said)),
        "macro_f1": float(metrics.f1_score(truth, said, average="macro", zero_division=0)),
        "mcc": float(metrics.matthews_corrcoef(truth, said)),
    }


def distances(synthetic: Sequence[Row], real: Sequence[Row], schema: Schema) -> dict[str, float]:
    """Of each column, from 0 to 1: Kolmogorov and Smirnov's statistic of numbers, total variation of the rest."""
    from scipy.stats import ks_2samp

    left, right, found = frame(synthetic, schema), frame(real, schema), {}
    for column in schema.columns:
        a, b = left[column.name].dropna(), right[column.name].dropna()
        if a.empty or b.empty:
            found[column.name] = float(len(a) != len(b))
        elif column.type in ("integer", "number"):
            found[column.name] = float(ks_2samp(a, b, method="asymp").statistic)
        else:
            shares = [part.value_counts(normalize=True) for part in (a, b)]
            found[column.name] = float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)
    return found


def compared(synthetic: Sequence[Row], train: Sequence[Row], test: Sequence[Row], schema: Schema) -> dict:
    """Correlations, and how near rows are to training rows, in the space of z-scored and one-hot columns of train:

    correlation_difference: mean absolute difference of pairwise correlations; nearest_distance: the median distance to
    the nearest training row, and nearest_distance_test that of the real test rows; copies: the share of exact copies.
    """
    names = [column.name for column in schema.columns]
    space = encoder(schema, names).fit(frame(train, schema))
    known, values = space.transform(frame(train, schema)), space.transform(frame(synthetic, schema))
    texts = {as_text(row) for row in train}
    return {
        "correlation_difference": float(np.mean(np.abs(correlations(values) - correlations(known)))),
        "nearest_distance": float(np.median(nearest(values, known))),
        "nearest_distance_test": float(np.median(nearest(space.transform(frame(test, schema)), known))),
        "copies": sum(as_text(row) in texts for row in synthetic) / len(synthetic),
    }


def nearest(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[rows] Euclidean distance to the nearest of the known rows."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=1).fit(known).kneighbors(values)[0][:, 0]


def correlations(values: np.ndarray) -> np.ndarray:
    """The correlations of all pairs of columns; 0 where one is constant."""
    with np.errstate(all="ignore"):
        found = (
            np.atleast_2d(np.corrcoef(values, rowvar=False)) if len(values) > 1 else np.zeros((values.shape[1],) * 2)
        )
    return np.nan_to_num(found)[np.triu_indices(values.shape[1], 1)] if values.shape[1] > 1 else np.zeros(1)
