"""Tables: what is near what, shares, pairs, scores and figures."""

import json
import random

import numpy as np
import pytest
import torch
from people import HEADER, people, schema_of, table

from workflow_scripts.core import table_metrics, tables
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.schemas import as_text, typed
from workflow_scripts.core.table_sections import Merge
from workflow_scripts.tasks import tabular

# ---------------------------------------------------------------- rows among rows


def test_examples_are_the_nearest_and_the_farthest_and_never_the_row_itself():
    schema, rows = table()
    rows += rows[:10]  # equal rows
    values = tables.encoded(rows, schema)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for place, (near, far) in enumerate(tables.similar(rows, schema)):
        shown = [rows[i] for i in [*near, far]]
        assert rows[place] not in shown and len({as_text(row) for row in shown}) == 5
        likeness = unit @ unit[place]
        others = [i for i in range(len(rows)) if rows[i] != rows[place]]
        assert likeness[near[0]] == pytest.approx(likeness[others].max())
        assert likeness[far] == pytest.approx(likeness[others].min())


def test_a_table_needs_six_different_rows():
    schema, rows = table()
    with pytest.raises(BadInput, match="5 different rows; a prompt needs 5 beside"):
        next(tables.similar(rows[:5] * 3, schema))


def test_constant_columns_missing_cells_and_forty_columns_are_no_obstacle():
    header = [f"c{i}" for i in range(39)] + ["y"]
    rng = random.Random(0)
    lines = [
        ["7", *(f"{rng.random():.3f}" for _ in range(37)), rng.choice(["", "a"]), rng.choice("pq")] for _ in range(30)
    ]
    schema = schema_of(header, lines)
    rows = [typed(schema, header, cells)[0] for cells in lines]
    assert len(schema.columns) == 40 and np.isfinite(tables.encoded(rows, schema)).all()
    assert len(list(tables.similar(rows, schema))) == 30
    assert "thirty" not in tabular.question(rows[:5], "y", "classification") and "39 features" in tabular.question(
        rows[:5], "y", "classification"
    )
    found = table_metrics.compared(rows[:15], rows, rows[15:], schema)
    assert found["copies"] == 1 and found["nearest_distance"] == 0 and np.isfinite(found["correlation_difference"])


def test_anchors_are_different_real_rows():
    schema, rows = table()
    places, groups = tables.clusters(rows, schema, 8, 0)
    assert len(set(places)) == 8 and len(set(groups)) == 8
    assert places == tables.clusters(rows, schema, 8, 0)[0]
    with pytest.raises(BadInput, match="num_clusters: 61 asked"):
        tables.clusters(rows, schema, 61, 0)


@pytest.mark.parametrize("clients", [1, 3, 20, 60])
def test_each_row_has_one_client_and_each_client_a_row(clients):
    schema, rows = table()
    parts = tables.shared_out(rows, schema, clients, 0.5, 0)
    assert sorted(place for part in parts for place in part) == list(range(60)) and all(parts)
    with pytest.raises(BadInput, match="clients: 61 asked"):
        tables.shared_out(rows, schema, 61, 0.5, 0)


def test_small_alpha_gives_clients_labels_of_their_own():
    schema, rows = table(600)

    def purity(alpha):
        parts = tables.shared_out(rows, schema, 4, alpha, 0)
        shares = [np.mean([rows[i]["status"] == "ill" for i in part]) for part in parts]
        return np.mean([max(share, 1 - share) for share in shares])

    assert purity(0.05) > purity(1000) + 0.15


def test_equal_quantities_are_shared_out():
    schema = schema_of(["a", "b"], [[str(i), f"{i}.5"] for i in range(30)])
    rows = [{"a": i, "b": 1.0} for i in range(5)]
    assert tables.shared_out(rows, schema, 1, 0.5, 0) == [[0, 1, 2, 3, 4]]


def test_a_feature_may_be_missing_in_test_rows_alone():
    schema, rows = table()
    row, reason = typed(schema, HEADER, ["", "120.0", "", "ill"])
    assert reason is None and row["Age"] is None and row["Pain/Type"] is None
    assert np.isfinite(table_metrics.compared([row], rows, [row], schema)["nearest_distance_test"])


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_columns_without_any_value_are_kept():
    header, lines = [*HEADER[:3], "empty", "status"], [[*cells[:3], "", cells[3]] for cells in people()]
    schema = schema_of(header, lines)
    rows = [typed(schema, header, cells)[0] for cells in lines]
    assert schema.column("empty").optional and len(schema.columns) == 5
    assert len(list(tables.similar(rows, schema))) == len(rows)


def test_numbers_beyond_all_measure_are_refused_and_large_ones_kept():
    schema = schema_of(["a", "y"], [[f"{i}e300", "pq"[i % 2]] for i in range(1, 30)])
    with pytest.raises(BadInput, match="too large to be compared"):
        tables.encoded([typed(schema, ["a", "y"], [f"{i}e300", "p"])[0] for i in range(1, 30)], schema)
    lines = [[str(i), str(1700000000000000001 + 3000 * i)] for i in range(30)]
    times = schema_of(["a", "y"], lines)
    rows = [typed(times, ["a", "y"], cells, strict=True)[0] for cells in lines]
    assert len(tables.candidates(times, rows)) > 1
    mixed = schema_of(["a", "y"], [["9007199254740993", "p"], ["0.5", "q"]])
    assert typed(mixed, ["a", "y"], ["9007199254740993", "p"], strict=True)[1] is None


# ---------------------------------------------------------------- pairs


def answers(*found) -> dict:
    shared = {"id": "q", "req": "r", "task": "mine", "correct": "{}"}
    rows = [
        {"uid": f"u{i}", "text": f"t{i}", "status": status, "score": score, "likelihood": score, "label": "ill"}
        | {"prompt_tokens": [1], "tokens": [2], "mask": [1], "policy": "p", "finish": "eos"}
        for i, (status, score) in enumerate(found)
    ]
    return {"auto": {"question": shared | {"resps": rows}}}


def pairs_of(metas, pairs=1000, seed=0):
    rows, dropped = tabular.select(metas, {"pairs": pairs}, seed, None)
    assert all(
        a["pair"] == b["pair"] and (a["advantage"], b["advantage"]) == (1, -1) for a, b in zip(rows[::2], rows[1::2])
    )
    assert len({row["qid"] for row in rows}) == len(rows)
    return {(a["source"], b["source"], a["type"]) for a, b in zip(rows[::2], rows[1::2])}, dropped


def test_rows_of_different_labels_are_not_compared():
    metas = answers(("SUCCESS", 0.1), ("SUCCESS", 0.3), ("MISSING_KEY", None))
    metas["auto"]["question"]["resps"][1]["label"] = "well"
    found, dropped = pairs_of(metas)
    assert found == {("u0", "u2", "status"), ("u1", "u2", "status")} and dropped == {"pair of different labels": 1}


def test_better_status_or_higher_gain_is_preferred():
    found, dropped = pairs_of(answers(("SUCCESS", 0.1), ("SUCCESS", 0.3), ("MISSING_KEY", None), ("SUCCESS", 0.1)))
    assert found == {
        ("u1", "u0", "score"), ("u1", "u3", "score"), ("u0", "u2", "status"), ("u1", "u2", "status"),
        ("u3", "u2", "status"),
    }  # fmt: skip
    assert dropped == {"pair of equal worth": 1}


def test_a_copy_loses_to_a_row_and_wins_against_nothing():
    found, _ = pairs_of(answers(("SUCCESS", None), ("SUCCESS", -0.5), ("REDUNDANT_KEY", None)))
    assert found == {("u1", "u0", "status"), ("u1", "u2", "status")}


def test_prompts_without_a_good_answer_teach_nothing_and_samples_are_seeded():
    assert pairs_of(answers(("MISSING_KEY", None), ("INVALID_ANSWER", None))) == (
        set(), {"prompt without a good answer": 1},
    )  # fmt: skip
    many = answers(*[("SUCCESS", i / 10) for i in range(10)])
    found, dropped = pairs_of(many, pairs=7)
    assert len(found) == 7 and dropped == {"pair beyond data.pairs": 38}
    assert found == pairs_of(many, pairs=7)[0] != pairs_of(many, pairs=7, seed=1)[0]


# ---------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **shape)).eval()


def test_shared_prefixes_change_nothing_but_the_cost(model):
    from workflow_scripts.training.prefixes import answer_logps, read_shared

    rng = random.Random(0)
    draw = lambda count: [rng.randrange(50) for _ in range(count)]  # noqa: E731
    head, answers = draw(20), [[3], [4, 5], [4, 6, 7]]
    groups = [[head + line + draw(rng.randint(3, 9)) for _ in range(3)] for line in (draw(4), draw(9), [])]
    groups.append([draw(5), draw(7)])  # begins otherwise
    shared = read_shared(model, groups[:3])
    assert shared[1] == head[: len(shared[1])] and len(shared[1]) >= 20
    found, cost = answer_logps(model, groups[:3], answers, shared)
    found += answer_logps(model, groups[3:], answers, shared)[0]
    whole = 0
    for group, of_group in zip(groups, found):
        for prompt, values in zip(group, of_group):
            for answer, value in zip(answers, values):
                with torch.no_grad():
                    logps = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
                expected = sum(logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
                assert value == pytest.approx(expected, abs=1e-4)
                whole += len(prompt + answer) if group is not groups[3] else 0
    assert cost < whole / 3


def test_gains_have_the_right_sign():
    from workflow_scripts.addscore import chosen, likelihood, scored

    labels = {"task": "classification", "candidates": ["a", "b"], "scale": 1.0, "ds0": [{"gold": g} for g in "aabb"]}
    sure = {"a": [-0.1, -2.0], "b": [-2.0, -0.1]}
    right, wrong = (scored([sure[label] for label in said], labels) for said in ("aabb", "bbaa"))
    assert right["score"] == 1 and wrong["score"] == -1 and right["answers"] == list("aabb")
    a = {"gold": "a", "target": "a"}
    assert likelihood(sure["b"], a, labels) == pytest.approx(-2.0 - np.log(np.exp(-0.1) + np.exp(-2.0)))
    assert likelihood(sure["a"], a, labels) == likelihood([0.0, -0.1], a, labels) == np.log(0.5)
    numbers = {"task": "regression", "candidates": ["10", "20"], "scale": 5.0, "ds0": [{"gold": "10"}, {"gold": "20"}]}
    assert chosen([-3.0, -3.0], numbers) == pytest.approx(15)
    near, far = scored([[0.0, -50.0], [-50.0, 0.0]], numbers), scored([[-3.0, -3.0], [-3.0, -3.0]], numbers)
    assert near["score"] == pytest.approx(0) and far["score"] == pytest.approx(-1)
    # a target beyond all candidates is as far as it was written, not as far as its nearest candidate
    assert likelihood([-3.0, -3.0], {"gold": "20", "target": 1000}, numbers) == pytest.approx(-985 / 5)
    assert likelihood([-3.0, -3.0], {"gold": "20", "target": 17}, numbers) == -0.5


def test_equal_scores_are_told_apart_by_likelihood():
    metas = answers(("SUCCESS", 0.03), ("SUCCESS", 0.03))
    for answer, likelihood in zip(metas["auto"]["question"]["resps"], (-0.5, -0.2)):
        answer["likelihood"] = likelihood
    assert pairs_of(metas)[0] == {("u1", "u0", "score")}


def test_small_gains_count_for_labels_and_not_for_quantities():
    metas = answers(("SUCCESS", 0.03), ("SUCCESS", 0.0))
    rows = metas["auto"]["question"]["resps"]
    for answer, likelihood in zip(rows, (-0.5, -0.2)):
        answer["likelihood"] = likelihood
    assert pairs_of(metas)[0] == {("u0", "u1", "score")}
    for answer in rows:
        answer["label"] = None
    assert pairs_of(metas)[0] == {("u1", "u0", "score")}
    rows[0]["score"] = 0.13
    assert pairs_of(metas)[0] == {("u0", "u1", "score")}


def test_candidates_of_a_quantity_are_its_quantiles():
    header, lines = ["x", "y"], [[str(i), f"{i * 1.5:.1f}"] for i in range(101)]
    schema = schema_of(header, lines)
    rows = [typed(schema, header, cells)[0] for cells in lines]
    choices = tables.candidates(schema, rows)
    assert schema.task == "regression" and choices[0] == "7.5" and choices[-1] == "142.5" and len(choices) == 10
    assert tabular.nearest(schema, choices, {"x": 1, "y": 8.0}) == "7.5"
    assert tables.spread(schema, rows) == pytest.approx(np.std([row["y"] for row in rows]))


def test_merges():
    from workflow_scripts.merge_models import merged

    before, trained = {"w": torch.zeros(1000)}, {"w": torch.ones(1000)}
    assert torch.equal(merged(before, trained, Merge(weight=0.25), 0)["w"], torch.full((1000,), 0.25))
    dare = merged(before, trained, Merge(method="dare_linear", weight=1.0, density=0.25), 0)["w"]
    assert set(dare.tolist()) == {0.0, 4.0} and 0.8 < dare.mean() < 1.2
    with pytest.raises(BadInput, match="cannot be merged"):
        merged({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, Merge(), 0)


# ---------------------------------------------------------------- figures


def test_models_trained_on_good_rows_beat_those_trained_on_noise():
    schema, rows = table(200)
    _, test = table(200, seed=1)
    rng = random.Random(0)
    noise = [row | {"status": rng.choice(["ill", "well"])} for row in rows]
    good, bad = (table_metrics.trained_and_tested(part, test, schema) for part in (rows, noise))
    for learner in ("gradient_boosting", "logistic_regression"):
        assert good[learner]["mcc"] > 0.8 > 0.3 > bad[learner]["mcc"]


@pytest.mark.parametrize("count", [0, 1])
def test_rows_of_one_label_or_none_teach_a_constant(count):
    schema, rows = table()
    found = table_metrics.trained_and_tested(rows[:count], rows, schema)
    assert found["gradient_boosting"]["mcc"] == 0 and 0 < found["logistic_regression"]["accuracy"] < 1


def test_distances_are_0_of_equal_tables_and_1_of_tables_that_share_nothing():
    schema, rows = table()
    assert set(table_metrics.distances(rows, rows, schema).values()) == {0.0}
    far = [{"Age": 200, "blood pressure": 900.0, "Pain/Type": "other", "status": "dead"}] * 5
    assert set(table_metrics.distances(far, rows, schema).values()) == {1.0}
    assert set(table_metrics.distances([], rows, schema).values()) == {1.0}


def test_a_quantity_goes_the_same_way():
    rng = random.Random(0)
    header, lines = ["x", "z", "y"], []
    for _ in range(120):
        x, z = rng.random(), rng.random()
        lines.append([f"{x:.3f}", f"{z:.3f}", f"{3 * x - z + rng.gauss(0, 0.05):.2f}"])
    schema = schema_of(header, lines)
    rows = [typed(schema, header, cells)[0] for cells in lines]
    assert schema.task == "regression" and schema.labels == ()
    parts = tables.shared_out(rows, schema, 5, 0.5, 0)
    assert sorted(place for part in parts for place in part) == list(range(120)) and all(parts)
    found = table_metrics.trained_and_tested(rows[:80], rows[80:], schema)
    assert found["linear_regression"]["r2"] > 0.95 and found["gradient_boosting"]["mae"] < 0.3
    assert table_metrics.trained_and_tested([], rows, schema)["gradient_boosting"]["r2"] < 0.1
    before, after, gold = tabular.task_question(schema, tables.candidates(schema, rows), rows[:2], rows[3])
    assert "y" not in json.loads(after) and gold in tables.candidates(schema, rows) and before.count("\n") == 3
