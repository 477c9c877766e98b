"""Rows among rows: what is near what, anchors, shares, what models are asked, and measures of one table by another."""

import json
import random

import numpy as np
import pytest

from tests.tasks.tabular.people import HEADER, people, rows_of, schema_of, table
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.tabular import measures, tables
from workflow_scripts.tasks.tabular.questions import nearest_candidate, row_question, target_question
from workflow_scripts.tasks.tabular.schemas import as_text, typed_row


def quantities():
    """Return the schema and the rows of a table whose target is a quantity that follows from two features."""
    rng = random.Random(0)
    header = ["x", "z", "y"]
    lines = []
    for _ in range(120):
        x, z = rng.random(), rng.random()
        lines.append([f"{x:.3f}", f"{z:.3f}", f"{3 * x - z + rng.gauss(0, 0.05):.2f}"])
    schema = schema_of(header, lines)
    return schema, rows_of(schema, header, lines)


# ---------------------------------------------------------------- examples


def test_examples_are_the_nearest_and_the_farthest_and_never_the_row_itself():
    schema, rows = table()
    rows += rows[:10]  # equal rows
    values = tables.encoded(rows, schema)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)

    for position, (near, far) in enumerate(tables.similar(rows, schema)):
        shown = [rows[number] for number in [*near, far]]
        assert rows[position] not in shown
        assert len({as_text(row) for row in shown}) == 5

        similarity = unit @ unit[position]
        others = [number for number in range(len(rows)) if rows[number] != rows[position]]
        assert similarity[near[0]] == pytest.approx(similarity[others].max())
        assert similarity[far] == pytest.approx(similarity[others].min())


def test_a_table_needs_six_different_rows():
    schema, rows = table()
    with pytest.raises(BadInput, match="5 different rows; a prompt needs 5 beside"):
        next(tables.similar(rows[:5] * 3, schema))


def test_constant_columns_missing_cells_and_forty_columns_are_no_obstacle():
    header = [f"c{i}" for i in range(39)] + ["y"]
    rng = random.Random(0)
    lines = []
    for _ in range(30):
        numbers = [f"{rng.random():.3f}" for _ in range(37)]
        lines.append(["7", *numbers, rng.choice(["", "a"]), rng.choice("pq")])
    schema = schema_of(header, lines)
    rows = rows_of(schema, header, lines)

    assert len(schema.columns) == 40
    assert np.isfinite(tables.encoded(rows, schema)).all()
    assert len(list(tables.similar(rows, schema))) == 30
    likeness = measures.compare(rows[:15], rows, rows[15:], schema)
    assert likeness["copies"] == 1
    assert likeness["nearest_distance"] == 0
    assert np.isfinite(likeness["correlation_difference"])

    question = row_question(rows[:5], "y", "classification")
    assert "thirty" not in question
    assert "five samples of a table with 39 features" in question


def test_a_feature_may_be_missing_in_test_rows_only():
    schema, rows = table()
    [row] = rows_of(schema, HEADER, [["", "120.0", "", "ill"]])
    assert row["Age"] is None
    assert row["Pain/Type"] is None
    assert np.isfinite(measures.compare([row], rows, [row], schema)["nearest_distance_test"])


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_columns_without_any_value_are_kept():
    header = [*HEADER[:3], "empty", "status"]
    lines = [[*cells[:3], "", cells[3]] for cells in people()]
    schema = schema_of(header, lines)
    rows = rows_of(schema, header, lines)
    assert schema.column("empty").optional
    assert len(schema.columns) == 5
    assert len(list(tables.similar(rows, schema))) == len(rows)


def test_numbers_beyond_all_measure_are_refused_and_large_ones_kept():
    huge = [[f"{i}e300", "pq"[i % 2]] for i in range(1, 30)]
    schema = schema_of(["a", "y"], huge)
    with pytest.raises(BadInput, match="too large to be compared"):
        tables.encoded(rows_of(schema, ["a", "y"], huge), schema)

    large = [[str(i), str(1700000000000000001 + 3000 * i)] for i in range(30)]
    times = schema_of(["a", "y"], large)
    assert len(tables.candidates_of(times, rows_of(times, ["a", "y"], large, strict=True))) > 1

    mixed = schema_of(["a", "y"], [["9007199254740993", "p"], ["0.5", "q"]])
    assert typed_row(mixed, ["a", "y"], ["9007199254740993", "p"], strict=True)[1] is None


# ---------------------------------------------------------------- anchors and shares


def test_anchors_are_different_real_rows():
    schema, rows = table()
    positions, cluster_of = tables.clusters(rows, schema, 8, 0)
    assert len(set(positions)) == 8
    assert len(set(cluster_of)) == 8
    assert positions == tables.clusters(rows, schema, 8, 0)[0]
    with pytest.raises(BadInput, match="num_clusters: 61 requested"):
        tables.clusters(rows, schema, 61, 0)


@pytest.mark.parametrize("clients", [1, 3, 20, 60])
def test_each_row_has_one_client_and_each_client_a_row(clients):
    schema, rows = table()
    parts = tables.shared_out(rows, schema, clients, 0.5, 0, "0")
    assert sorted(position for part in parts for position in part) == list(range(60))
    assert all(parts)
    with pytest.raises(BadInput, match="clients: 61 requested"):
        tables.shared_out(rows, schema, 61, 0.5, 0, "0")


def test_small_alpha_gives_clients_labels_of_their_own():
    schema, rows = table(600)

    def purity(alpha):
        parts = tables.shared_out(rows, schema, 4, alpha, 0, "0")
        shares = [np.mean([rows[position]["status"] == "ill" for position in part]) for part in parts]
        return np.mean([max(share, 1 - share) for share in shares])

    assert purity(0.05) > purity(1000) + 0.15
    assert purity(None) == pytest.approx(0.5, abs=0.1)


def test_clients_have_the_same_shares_of_labels_in_all_rounds():
    schema, rows = table(2000)

    def shares(seed, own):
        parts = tables.shared_out(own, schema, 4, 0.3, 7, seed)
        return [np.mean([own[position]["status"] == "ill" for position in part]) for part in parts], parts

    first, parts = shares("1", rows)
    other, other_parts = shares("2", rows)
    assert parts != other_parts
    assert first == pytest.approx(other, abs=0.01)
    assert shares("1", rows[:1000])[0] == pytest.approx(first, abs=0.1)


def test_equal_quantities_are_shared_out():
    schema = schema_of(["a", "b"], [[str(i), f"{i}.5"] for i in range(30)])
    rows = [{"a": i, "b": 1.0} for i in range(5)]
    assert tables.shared_out(rows, schema, 1, 0.5, 0, "0") == [[0, 1, 2, 3, 4]]


def test_different_quantities_are_shared_out():
    schema, rows = quantities()
    parts = tables.shared_out(rows, schema, 5, 0.5, 0, "0")
    assert sorted(position for part in parts for position in part) == list(range(120))
    assert all(parts)


def test_shares_of_labels():
    schema, rows = table()
    ill = sum(row["status"] == "ill" for row in rows) / 60
    assert tables.label_shares(schema, rows) == pytest.approx({"ill": ill, "well": 1 - ill})
    assert tables.label_shares(quantities()[0], quantities()[1]) == {}


# ---------------------------------------------------------------- what task models are asked


def test_candidates_of_a_quantity_are_its_quantiles():
    header = ["x", "y"]
    lines = [[str(i), f"{i * 1.5:.1f}"] for i in range(101)]
    schema = schema_of(header, lines)
    rows = rows_of(schema, header, lines)
    candidates = tables.candidates_of(schema, rows)
    assert schema.task == "regression"
    assert candidates[0] == "7.5"
    assert candidates[-1] == "142.5"
    assert len(candidates) == 10
    assert nearest_candidate(schema, candidates, {"x": 1, "y": 8.0}) == "7.5"
    assert tables.spread_of(schema, rows) == pytest.approx(np.std([row["y"] for row in rows]))


def test_a_question_about_a_target_does_not_show_it():
    schema, rows = quantities()
    candidates = tables.candidates_of(schema, rows)
    question = target_question(schema, candidates, rows[:2], rows[3])
    assert "y" not in json.loads(question.after)
    assert question.reference in candidates
    assert question.before.count("\n") == 3


# ---------------------------------------------------------------- measures


def test_models_trained_on_good_rows_beat_those_trained_on_noise():
    schema, rows = table(200)
    _, test = table(200, seed=1)
    rng = random.Random(0)
    noise = [row | {"status": rng.choice(["ill", "well"])} for row in rows]
    good = measures.trained_and_tested(rows, test, schema)
    bad = measures.trained_and_tested(noise, test, schema)
    for learner in ("gradient_boosting", "logistic_regression"):
        assert good[learner]["mcc"] > 0.8 > 0.3 > bad[learner]["mcc"]


@pytest.mark.parametrize("count", [0, 1])
def test_rows_of_one_label_or_none_teach_a_constant(count):
    schema, rows = table()
    of_models = measures.trained_and_tested(rows[:count], rows, schema)
    assert of_models["gradient_boosting"]["mcc"] == 0
    assert 0 < of_models["logistic_regression"]["accuracy"] < 1


def test_quantities_are_measured_by_r2_and_mae():
    schema, rows = quantities()
    assert schema.task == "regression"
    assert schema.labels == ()
    of_models = measures.trained_and_tested(rows[:80], rows[80:], schema)
    assert of_models["linear_regression"]["r2"] > 0.95
    assert of_models["gradient_boosting"]["mae"] < 0.3
    assert measures.trained_and_tested([], rows, schema)["gradient_boosting"]["r2"] < 0.1


def test_distances_are_0_of_equal_tables_and_1_of_tables_that_share_nothing():
    schema, rows = table()
    assert set(measures.distances(rows, rows, schema).values()) == {0.0}
    far = [{"Age": 200, "blood pressure": 900.0, "Pain/Type": "other", "status": "dead"}] * 5
    assert set(measures.distances(far, rows, schema).values()) == {1.0}
    assert set(measures.distances([], rows, schema).values()) == {1.0}
