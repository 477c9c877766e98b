"""Tables: schemas, answers read as rows, what is near what, shares, pairs, scores and figures; bad tables."""

import json
import math
import random

import numpy as np
import pytest
import torch

from workflow_scripts import split_tables
from workflow_scripts.core import table_metrics, tables
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.schemas import as_text, extract, infer, read_csv, read_schema, read_table, typed, write_csv
from workflow_scripts.core.table_sections import Merge
from workflow_scripts.tasks import tabular

HEADER = ["Age", "blood pressure", "Pain/Type", "status"]


def schema_of(header, lines, path="mine.csv", **options):
    return infer("mine", str(path), header, lines, **options)


def people(count: int = 60, seed: int = 0) -> list[list[str]]:
    rng, lines = random.Random(seed), []
    for _ in range(count):
        age = rng.randint(30, 70)
        ill = age > 50
        pressure = f"{rng.gauss(140 if ill else 115, 8):.1f}"
        lines.append([str(age), pressure, rng.choice(["none", 'Typical, "old"', "Ünüblich"]), "ill" if ill else "well"])
    return lines


def table(count: int = 60, seed: int = 0):
    lines = people(count, seed)
    schema = schema_of(HEADER, lines)
    return schema, [typed(schema, HEADER, cells)[0] for cells in lines]


# ---------------------------------------------------------------- schemas


def test_a_schema_follows_from_the_cells():
    schema, rows = table()
    assert [column.type for column in schema.columns] == ["integer", "number", "category", "category"]
    assert schema.task == "classification" and schema.labels == ("ill", "well") and schema.target == "status"
    assert schema.column("blood pressure").decimals == 1 and not schema.column("Age").optional
    assert all(isinstance(row["Age"], int) and isinstance(row["blood pressure"], float) for row in rows)


def test_rows_survive_csv_with_quotes_unicode_and_missing_cells(tmp_path):
    lines = [*people(), ["40", "", "one\rtwo\r\n", "well"]]
    schema = schema_of(HEADER, lines)
    rows = [typed(schema, HEADER, cells)[0] for cells in lines]
    assert schema.column("blood pressure").optional and rows[-1]["blood pressure"] is None
    write_csv(tmp_path / "rows.csv", schema, rows)
    assert read_table(schema, tmp_path / "rows.csv") == rows


def test_yaml_beside_the_table_has_the_last_word(tmp_path):
    (tmp_path / "t.yaml").write_text("target: grade\ntask: classification\ncolumns: {code: {type: category}}\n")
    header, lines = ["grade", "code", "x"], [[str(i % 3), str(i % 4), str(i)] for i in range(20)]
    schema = schema_of(header, lines, tmp_path / "t.csv")
    assert schema.target == "grade" and schema.labels == ("0", "1", "2") and schema.column("code").type == "category"
    (tmp_path / "t.yaml").write_text("columns: {code: {type: colour}}\n")
    with pytest.raises(BadInput, match=r"t\.yaml: column 'code'"):
        schema_of(header, lines, tmp_path / "t.csv")
    (tmp_path / "t.yaml").write_text("columns: {kode: {type: category}}\n")
    with pytest.raises(BadInput, match=r"t\.csv: no column 'kode' among those used: grade, code, x"):
        schema_of(header, lines, tmp_path / "t.csv")
    (tmp_path / "t.yaml").write_text("columns: {code: {values: ['1', '2']}, x: {minimum: -5.5, maximum: null}}\n")
    schema = schema_of(header, lines, tmp_path / "t.csv")
    assert schema.column("code").type == "category" and schema.column("x").span == (-5.5, math.inf)
    for wrong, said in (
        ("code: {type: integer, values: ['1']}", "`values` are of a category, and the column's type is integer"),
        ("code: {type: category, maximum: 9}", "`minimum` and `maximum` are of numbers, and .* is category"),
        ("x: {minimum: 30}", "`minimum` 30 is above `maximum` 19"),
        ("x: {name: z}", "`name` is no key"),
    ):
        (tmp_path / "t.yaml").write_text(f"columns: {{{wrong}}}\n")
        with pytest.raises(BadInput, match=rf"t\.yaml: column '[codex]+': .*{said}"):
            schema_of(header, lines, tmp_path / "t.csv")
    (tmp_path / "t.yaml").write_bytes("# größe\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"t\.yaml: not YAML"):
        schema_of(header, lines, tmp_path / "t.csv")
    (tmp_path / "t.yaml").write_text("traget: x\n")
    with pytest.raises(BadInput, match=r"t\.yaml: traget: .* not permitted; should be target, task and columns"):
        schema_of(header, lines, tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("a,b\n", "a header alone"),
        ("a,,c\n1,2,3\n", "column 2 has no name"),
        ("Heart rate,heart_rate,c\n1,2,3\n", "'Heart rate' and 'heart_rate' could not be told apart"),
        ('a,b\n"1,2\n', "not a CSV file"),
        ("a;b\n1;2\n", "separated by commas, found ';'"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        read_csv(path)
    assert str(path) in str(error.value)


def test_targets_that_cannot_be_learnt():
    with pytest.raises(BadInput, match=r"mine\.csv: the target 'b' has 1 value"):
        schema_of(["a", "b"], [["1", "x"], ["2", "x"]])
    with pytest.raises(BadInput, match="one label in two spellings: Yes, yes"):
        schema_of(["a", "b"], [["1", "Yes"], ["2", "yes"], ["2", "no"]])
    with pytest.raises(BadInput, match=r"has 1 value.* \(- counts as missing, unless `values` has it\)"):
        schema_of(["a", "b"], [["1", "+"], ["2", "-"]])
    with pytest.raises(BadInput, match="40 different texts: neither label nor quantity"):
        schema_of(["a", "b"], [["1", f"x{i}"] for i in range(40)])
    with pytest.raises(BadInput, match="no column 'c' among those used: a, b"):
        schema_of(["a", "b"], [["1", "x"], ["2", "y"]], target="c")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["50", "120.0", "none"], "3 cells, the header has 4"),
        (["50", "120.0", "none", ""], "status is missing"),
        (["old", "120.0", "none", "ill"], "Age should be an integer, found 'old'"),
        (["50", "inf", "none", "ill"], "blood pressure should be a number"),
        (["50", "120.0", "none", "dead"], "status should be one of ill, well, found 'dead'"),
    ],
)
def test_rows_that_cannot_be_used(cells, reason):
    row, found = typed(table()[0], HEADER, cells)
    assert row is None and reason in found


@pytest.mark.parametrize("number", ["5", "5.0", "5.00"])
def test_a_number_is_one_row_however_it_is_written(number):
    schema = schema_of(["a", "y"], [[f"{i}.5", "pq"[i % 2]] for i in range(10)])
    row, _ = typed(schema, ["a", "y"], ["5.0", "p"])
    assert as_text(extract(f'{{"a": {number}, "y": "p"}}', schema)[1]) == as_text(row) == '{"a": 5.0, "y": "p"}'


def test_a_stray_text_among_numbers_is_a_reject_and_no_type():
    lines = [[str(i), f"{i}.5"] for i in range(30)] + [["12 kg", "1.5"], ["3", "n.a."], ["4", "much"]]
    schema = schema_of(["a", "b"], lines)
    assert schema.task == "regression" and [column.type for column in schema.columns] == ["integer", "number"]
    reasons = [typed(schema, ["a", "b"], cells)[1] for cells in lines[-3:]]
    assert "found '12 kg'" in reasons[0] and reasons[1] == "b is missing" and "found 'much'" in reasons[2]
    ages = schema_of(["a", "b"], [[str(i), str(i % 3)] for i in range(30)] + [["1", "?"], ["2", "three"]])
    assert ages.labels == ("0", "1", "2") and "should be one of" in typed(ages, ["a", "b"], ["2", "three"])[1]


@pytest.fixture
def split(tmp_path, monkeypatch):
    """(schema, train rows, test rows, rejects) of a table as split_tables leaves it."""

    def split(lines: list[str], beside: str = "", **options):
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
        (tmp_path / "mine.yaml").write_text(beside)
        given = json.dumps({"file": str(tmp_path / "mine.csv")} | options)
        monkeypatch.setattr(
            "sys.argv", ["split_tables", "--name", "mine", "--settings", given, "--output", str(tmp_path / "out")]
        )
        split_tables.main()
        schema = read_schema(tmp_path / "out/schema.json")
        rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
        return schema, *(read_table(schema, tmp_path / f"out/{name}.csv") for name in ("train", "test")), rejects

    return split


def test_what_no_answer_may_have_is_not_taught_but_tested(split):
    lines = ["a,y", *(f"{i},{i % 7 + i / 10}" for i in range(60))]
    _, train, test, rejects = split(lines, "columns: {a: {minimum: 10}, y: {maximum: 9}}\n")
    assert min(row["a"] for row in train) >= 10 and max(row["y"] for row in train) <= 9
    assert min(row["a"] for row in test) < 10 and max(row["y"] for row in test) > 9
    assert rejects and {one["split"] for one in rejects} == {"train"}
    assert {one["reason"].split(",")[0] for one in rejects} >= {"a should be from 10 to 59"}


def test_rows_that_rounding_made_equal_lie_on_one_side(split):
    alike = [f"0.{1000 + i % 9}00{i % 10},{i % 3},{'pq'[i % 2]}" for i in range(300)]
    _, train, test, rejects = split(["a,b,y", *alike, *(f"0.{i},{i},p" for i in range(20, 90))])
    assert test and not [row for row in test if row in train]
    assert {one["reason"] for one in rejects} == {"once rounded, it equals a training row"}


def test_the_target_in_the_yaml_counts_with_chosen_columns_too(split):
    lines = ["y,a,b,last", *(f"{'pq'[i % 2]},{i},{i},{i}" for i in range(40))]
    schema, *_ = split(lines, "target: y\n", columns=["a"])
    assert schema.target == "y" and schema.features == ["a"]


def test_rejects_have_their_row_in_the_file(split):
    lines = [f"{i},{'xy'[i % 2]}" for i in range(40)]
    lines[17] = "17,x,more"
    *_, [reject] = split(["a,b", *lines])
    assert reject["row"] == 18 and reject["reason"] == "3 cells, the header has 2"


def test_a_short_row_is_left_to_be_rejected():
    assert schema_of(["a", "b"], [["1", "x"], ["2"], ["3", "y"]]).labels == ("x", "y")


@pytest.mark.parametrize(
    ("cells", "decimals"),
    [(["0.5", "0.25"], 2), (["1e-05", "19e-05"], 5), (["0.000001", "0.000019"], 6), (["3.123456789", "1"], 4)],
)
def test_small_quantities_keep_what_counts_in_them(cells, decimals):
    schema = schema_of(["a", "b"], [[cell, "xy"[i]] for i, cell in enumerate(cells)])
    assert schema.column("a").decimals == decimals
    rows = [typed(schema, ["a", "b"], [cell, "x"])[0]["a"] for cell in cells]
    assert rows == pytest.approx([float(cell) for cell in cells], rel=1e-4)


def test_equal_rows_lie_on_one_side_however_they_are_written():
    from workflow_scripts.split_tables import in_test

    alike = [["1.0", "NA", "Ill"], ["1", "", " ill"], ["1.00", "?", "ILL"]]
    assert len({in_test(cells, 0.5, seed) for seed in range(1) for cells in alike}) == 1
    sides = [{in_test(cells, 0.5, seed) for cells in alike} for seed in range(20)]
    assert all(len(side) == 1 for side in sides) and len(set(map(frozenset, sides))) == 2


def test_equal_quantities_are_shared_out():
    schema = schema_of(["a", "b"], [[str(i), f"{i}.5"] for i in range(30)])
    rows = [{"a": i, "b": 1.0} for i in range(5)]
    assert tables.shared_out(rows, schema, 1, 0.5, 0) == [[0, 1, 2, 3, 4]]


def test_an_unseen_category_of_a_feature_is_kept():
    assert typed(table()[0], HEADER, ["50", "120.0", "Brand new", "ill"])[0]["Pain/Type"] == "Brand new"


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


def test_numbers_lie_within_the_tables_range_as_they_are_written():
    lines = [["12345678901234567890", "0.123456", "a"], ["-3", "2", "b"]]
    schema = schema_of(["whole", "part", "y"], lines)
    assert [schema.column(name).span for name in ("whole", "part")] == [(-3, 12345678901234567890), (0.1235, 2.0)]
    for cells in lines:
        row, _ = typed(schema, ["whole", "part", "y"], cells)
        assert extract(json.dumps(row), schema) == ("SUCCESS", row)
    assert extract(json.dumps(row | {"part": 2.1}), schema)[0] == "CONVERSION_ERROR"
    assert extract(json.dumps(row | {"whole": 12345678901234567891}), schema)[0] == "CONVERSION_ERROR"


def test_labels_have_one_spelling(tmp_path):
    schema = schema_of(["a", "y"], [[str(i), ["0", "1", "1.0"][i % 3]] for i in range(30)])
    assert schema.labels == ("0", "1") and typed(schema, ["a", "y"], ["3", "1.0"])[0]["y"] == "1"
    assert extract('{"a": 3, "y": 1.0}', schema) == ("SUCCESS", {"a": 3, "y": "1"})
    (tmp_path / "t.yaml").write_text("columns: {y: {values: ['+', '-']}}\n")
    signs = schema_of(["a", "y"], [[str(i), "+-"[i % 2]] for i in range(30)], tmp_path / "t.csv")
    assert signs.labels == ("+", "-") and typed(signs, ["a", "y"], ["3", "-"])[0]["y"] == "-"


def test_a_number_has_one_zero():
    schema = schema_of(["a", "y"], [[str(i / 2 - 3), "pq"[i % 2]] for i in range(30)])
    assert as_text(extract('{"a": -0.04, "y": "p"}', schema)[1]) == '{"a": 0.0, "y": "p"}'


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


# ---------------------------------------------------------------- answers

GOOD = {"Age": 44, "blood pressure": 120.5, "Pain/Type": "none", "status": "ill"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"Here: {json.dumps(GOOD)} as asked {{", "SUCCESS"),
        ("{'age': 44, 'Blood_Pressure': '120.5', 'paintype': 'NONE', 'Status': 'ill',}", "SUCCESS"),
        (json.dumps(GOOD | {"Age": 44.0}), "SUCCESS"),
        (json.dumps(GOOD | {"more": 1}), "REDUNDANT_KEY"),
        ('{"Age": 44, "age": 45, "blood pressure": 120.5, "Pain/Type": "none", "status": "ill"}', "REDUNDANT_KEY"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "Age"}), "MISSING_KEY"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "Age"} | {"more": 1}), "MISSING_KEY"),
        (json.dumps(GOOD | {"Age": 44.5}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"Age": 440}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"blood pressure": -120.5}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"Age": True}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"Age": None}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"Age": [44]}), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"blood pressure": 1e400}).replace("Infinity", "1e999"), "CONVERSION_ERROR"),
        (json.dumps(GOOD | {"Pain/Type": "invented", "more": 1}), "CONVERSION_ERROR"),
        ("{}", "MISSING_KEY"),
        ("no row", "INVALID_ANSWER"),
        ('{"Age": 44, "blood', "INVALID_ANSWER"),
        ("{" * 5000, "INVALID_ANSWER"),
        ("{1: 2}", "MISSING_KEY"),
        (f"{{0x{'f' * 4000}: 1}}", "MISSING_KEY"),
        (json.dumps(GOOD | {"Pain/Type": math.nan}), "CONVERSION_ERROR"),
        (str(GOOD | {"Pain/Type": ("none",)}), "CONVERSION_ERROR"),
        ("{*a}", "INVALID_ANSWER"),
    ],
)
def test_what_becomes_of_an_answer(text, status):
    found, row = extract(text, table()[0])
    assert found == status and (row is not None) == (status == "SUCCESS")
    if row:
        assert row == GOOD and list(row) == HEADER


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
