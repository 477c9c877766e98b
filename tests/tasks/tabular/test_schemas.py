"""Schemas: what cells tell about a table, which rows are trained and tested on, and answers that are read as rows."""

import json
import math

import pytest

from tests.tasks.tabular.people import HEADER, people, rows_of, schema_of, table
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.tabular import split_tables
from workflow_scripts.tasks.tabular.extraction import extract
from workflow_scripts.tasks.tabular.schemas import as_text, read_csv, read_schema, read_table, typed_row, write_csv


def test_a_schema_follows_from_the_cells():
    schema, rows = table()
    assert [column.type for column in schema.columns] == ["integer", "number", "category", "category"]
    assert schema.task == "classification"
    assert schema.target == "status"
    assert schema.labels == ("ill", "well")
    assert schema.column("blood pressure").decimals == 1
    assert not schema.column("Age").optional
    assert all(isinstance(row["Age"], int) and isinstance(row["blood pressure"], float) for row in rows)


def test_rows_survive_csv_with_quotes_unicode_and_missing_cells(tmp_path):
    lines = [*people(), ["40", "", "one\rtwo\r\n", "well"]]
    schema = schema_of(HEADER, lines)
    rows = rows_of(schema, HEADER, lines)
    assert schema.column("blood pressure").optional
    assert rows[-1]["blood pressure"] is None

    write_csv(tmp_path / "rows.csv", schema, rows)
    assert read_table(schema, tmp_path / "rows.csv") == rows


def test_a_table_without_rows_is_read(tmp_path):
    schema, _ = table()
    write_csv(tmp_path / "rows.csv", schema, [])
    assert read_table(schema, tmp_path / "rows.csv") == []


def test_rows_of_another_schema_are_refused(tmp_path):
    schema, _ = table()
    (tmp_path / "rows.csv").write_text("Age,status\n44,ill\n")
    with pytest.raises(BadInput, match=r"rows\.csv: there is no column 'blood pressure'; the file was edited by hand"):
        read_table(schema, tmp_path / "rows.csv")


# ---------------------------------------------------------------- the YAML file beside a table

GRADES = [[str(i % 3), str(i % 4), str(i)] for i in range(20)]


@pytest.fixture
def graded(tmp_path):
    """Return a function: the schema of a table with this text in the YAML file beside it."""

    def graded(yaml: str | bytes):
        (tmp_path / "t.yaml").write_bytes(yaml.encode() if isinstance(yaml, str) else yaml)
        return schema_of(["grade", "code", "x"], GRADES, tmp_path / "t.csv")

    return graded


def test_yaml_beside_the_table_has_the_last_word(graded):
    schema = graded("target: grade\ntask: classification\ncolumns: {code: {type: category}}\n")
    assert schema.target == "grade"
    assert schema.labels == ("0", "1", "2")
    assert schema.column("code").type == "category"

    schema = graded("columns: {code: {values: ['1', '2']}, x: {minimum: -5.5, maximum: null}}\n")
    assert schema.column("code").type == "category"
    assert schema.column("x").span == (-5.5, math.inf)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("columns: {code: {type: colour}}\n", r"t\.yaml: column 'code'"),
        ("columns: {kode: {type: category}}\n", r"t\.csv: there is no column 'kode' among those used: grade, code, x"),
        ("columns: {code: {type: integer, values: ['1']}}", r"'code': .*`values` belong to a category, .* is integer"),
        (
            "columns: {code: {type: category, maximum: 9}}",
            r"'code': .*`minimum` and `maximum` belong to numbers, .* is category",
        ),
        ("columns: {x: {minimum: 30}}", r"t\.yaml: column 'x': .*`minimum` 30 is above `maximum` 19"),
        ("columns: {x: {name: z}}", r"t\.yaml: column 'x': there is no key `name`"),
        ("# größe\n".encode("latin-1"), r"t\.yaml: not YAML"),
        ("traget: x\n", r"t\.yaml: traget: .* not permitted; its keys should be target, task and columns"),
    ],
)
def test_yaml_that_cannot_be_used(graded, yaml, message):
    with pytest.raises(BadInput, match=message):
        graded(yaml)


# ---------------------------------------------------------------- tables that cannot be used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("a,b\n", "only a header"),
        ("a,,c\n1,2,3\n", "column 2 has no name"),
        ("Heart rate,heart_rate,c\n1,2,3\n", "cannot tell the columns 'Heart rate' and 'heart_rate' apart"),
        ('a,b\n"1,2\n', "not a CSV file"),
        ("a;b\n1;2\n", "commas should separate the columns, found ';'"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        read_csv(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([["1", "x"], ["2", "x"]], r"mine\.csv: the target 'b' has 1 value"),
        ([["1", "Yes"], ["2", "yes"], ["2", "no"]], "one label in two spellings: Yes, yes"),
        ([["1", "+"], ["2", "-"]], r"has 1 value.* \(- counts as missing, unless `values` has it\)"),
        ([["1", f"x{i}"] for i in range(40)], "40 different texts: neither labels nor a quantity"),
    ],
)
def test_targets_that_cannot_be_learnt(lines, message):
    with pytest.raises(BadInput, match=message):
        schema_of(["a", "b"], lines)


def test_a_target_that_is_no_column():
    with pytest.raises(BadInput, match="there is no column 'c' among those used: a, b"):
        schema_of(["a", "b"], [["1", "x"], ["2", "y"]], target="c")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["50", "120.0", "none"], "3 cells, but the header has 4"),
        (["50", "120.0", "none", ""], "status is missing"),
        (["old", "120.0", "none", "ill"], "Age should be an integer, found 'old'"),
        (["50", "inf", "none", "ill"], "blood pressure should be a number"),
        (["50", "120.0", "none", "dead"], "status should be one of ill, well, found 'dead'"),
    ],
)
def test_rows_that_cannot_be_used(cells, reason):
    row, message = typed_row(table()[0], HEADER, cells)
    assert row is None
    assert message is not None and reason in message


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize("number", ["5", "5.0", "5.00"])
def test_a_number_is_one_row_however_it_is_written(number):
    schema = schema_of(["a", "y"], [[f"{i}.5", "pq"[i % 2]] for i in range(10)])
    [row] = rows_of(schema, ["a", "y"], [["5.0", "p"]])
    assert extract(f'{{"a": {number}, "y": "p"}}', schema) == ("SUCCESS", row)
    assert as_text(row) == '{"a": 5.0, "y": "p"}'


def test_a_stray_text_among_numbers_is_a_reject_and_no_type():
    lines = [[str(i), f"{i}.5"] for i in range(30)] + [["12 kg", "1.5"], ["3", "n.a."], ["4", "much"]]
    schema = schema_of(["a", "b"], lines)
    assert schema.task == "regression"
    assert [column.type for column in schema.columns] == ["integer", "number"]

    reasons = [str(typed_row(schema, ["a", "b"], cells)[1]) for cells in lines[-3:]]
    assert "found '12 kg'" in reasons[0]
    assert reasons[1] == "b is missing"
    assert "found 'much'" in reasons[2]

    ages = schema_of(["a", "b"], [[str(i), str(i % 3)] for i in range(30)] + [["1", "?"], ["2", "three"]])
    assert ages.labels == ("0", "1", "2")
    assert "should be one of" in str(typed_row(ages, ["a", "b"], ["2", "three"])[1])


def test_a_short_row_is_left_to_be_rejected():
    assert schema_of(["a", "b"], [["1", "x"], ["2"], ["3", "y"]]).labels == ("x", "y")


@pytest.mark.parametrize(
    ("cells", "decimals"),
    [(["0.5", "0.25"], 2), (["1e-05", "19e-05"], 5), (["0.000001", "0.000019"], 6), (["3.123456789", "1"], 4)],
)
def test_small_quantities_keep_what_counts_in_them(cells, decimals):
    schema = schema_of(["a", "b"], [[cell, "xy"[i]] for i, cell in enumerate(cells)])
    assert schema.column("a").decimals == decimals
    rows = rows_of(schema, ["a", "b"], [[cell, "x"] for cell in cells])
    assert [row["a"] for row in rows] == pytest.approx([float(cell) for cell in cells], rel=1e-4)


def test_an_unseen_category_of_a_feature_is_kept():
    [row] = rows_of(table()[0], HEADER, [["50", "120.0", "Brand new", "ill"]])
    assert row["Pain/Type"] == "Brand new"


def test_numbers_lie_within_the_tables_range_as_they_are_written():
    header = ["whole", "part", "y"]
    lines = [["12345678901234567890", "0.123456", "a"], ["-3", "2", "b"]]
    schema = schema_of(header, lines)
    assert [schema.column(name).span for name in ("whole", "part")] == [(-3, 12345678901234567890), (0.1235, 2.0)]

    rows = rows_of(schema, header, lines)
    for row in rows:
        assert extract(json.dumps(row), schema) == ("SUCCESS", row)
    assert extract(json.dumps(rows[0] | {"part": 2.1}), schema)[0] == "CONVERSION_ERROR"
    assert extract(json.dumps(rows[0] | {"whole": 12345678901234567891}), schema)[0] == "CONVERSION_ERROR"


def test_labels_have_one_spelling(tmp_path):
    schema = schema_of(["a", "y"], [[str(i), ["0", "1", "1.0"][i % 3]] for i in range(30)])
    assert schema.labels == ("0", "1")
    assert rows_of(schema, ["a", "y"], [["3", "1.0"]])[0]["y"] == "1"
    assert extract('{"a": 3, "y": 1.0}', schema) == ("SUCCESS", {"a": 3, "y": "1"})

    (tmp_path / "t.yaml").write_text("columns: {y: {values: ['+', '-']}}\n")
    signs = schema_of(["a", "y"], [[str(i), "+-"[i % 2]] for i in range(30)], tmp_path / "t.csv")
    assert signs.labels == ("+", "-")
    assert rows_of(signs, ["a", "y"], [["3", "-"]])[0]["y"] == "-"


def test_a_number_has_one_zero():
    schema = schema_of(["a", "y"], [[str(i / 2 - 3), "pq"[i % 2]] for i in range(30)])
    status, row = extract('{"a": -0.04, "y": "p"}', schema)
    assert status == "SUCCESS"
    assert as_text(row) == '{"a": 0.0, "y": "p"}'


# ---------------------------------------------------------------- the split


@pytest.fixture
def split(tmp_path, monkeypatch):
    """Return a function: (schema, train rows, test rows, rejects) of a table as split_tables leaves it."""

    def split(lines: list[str], sidecar: str = "", **options):
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
        (tmp_path / "mine.yaml").write_text(sidecar)
        settings = json.dumps({"file": str(tmp_path / "mine.csv")} | options)
        command = ["split_tables", "--name", "mine", "--settings", settings, "--output", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", command)
        split_tables.main()

        schema = read_schema(tmp_path / "out/schema.json")
        train, test = (read_table(schema, tmp_path / f"out/{name}.csv") for name in ("train", "test"))
        rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
        return schema, train, test, rejects

    return split


def test_what_no_answer_may_have_is_not_taught_but_tested(split):
    lines = ["a,y", *(f"{i},{i % 7 + i / 10}" for i in range(60))]
    _, train, test, rejects = split(lines, "columns: {a: {minimum: 10}, y: {maximum: 9}}\n")
    assert min(row["a"] for row in train) >= 10
    assert max(row["y"] for row in train) <= 9
    assert min(row["a"] for row in test) < 10
    assert max(row["y"] for row in test) > 9
    assert {reject["split"] for reject in rejects} == {"train"}
    assert {reject["reason"].split(",")[0] for reject in rejects} >= {"a should be from 10 to 59"}


def test_rows_that_rounding_made_equal_lie_on_one_side(split):
    alike = [f"0.{1000 + i % 9}00{i % 10},{i % 3},{'pq'[i % 2]}" for i in range(300)]
    _, train, test, rejects = split(["a,b,y", *alike, *(f"0.{i},{i},p" for i in range(20, 90))])
    assert test
    assert not [row for row in test if row in train]
    assert {reject["reason"] for reject in rejects} == {"once rounded, it equals a training row"}


def test_the_target_in_the_yaml_counts_with_chosen_columns_too(split):
    lines = ["y,a,b,last", *(f"{'pq'[i % 2]},{i},{i},{i}" for i in range(40))]
    schema, *_ = split(lines, "target: y\n", columns=["a"])
    assert schema.target == "y"
    assert schema.features == ["a"]


def test_rejects_have_their_row_in_the_file(split):
    lines = [f"{i},{'xy'[i % 2]}" for i in range(40)]
    lines[17] = "17,x,more"
    *_, [reject] = split(["a,b", *lines])
    assert reject == {"split": reject["split"], "row": 18, "reason": "3 cells, but the header has 2"}


def test_equal_rows_lie_on_one_side_however_they_are_written():
    alike = [["1.0", "NA", "Ill"], ["1", "", " ill"], ["1.00", "?", "ILL"]]
    sides = [{split_tables.is_test_row(cells, 0.5, seed) for cells in alike} for seed in range(20)]
    assert all(len(side) == 1 for side in sides)
    assert len(set(map(frozenset, sides))) == 2


# ---------------------------------------------------------------- answers

GOOD = {"Age": 44, "blood pressure": 120.5, "Pain/Type": "none", "status": "ill"}
WITHOUT_AGE = {key: value for key, value in GOOD.items() if key != "Age"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"Here: {json.dumps(GOOD)} as asked {{", "SUCCESS"),
        ("{'age': 44, 'Blood_Pressure': '120.5', 'paintype': 'NONE', 'Status': 'ill',}", "SUCCESS"),
        (json.dumps(GOOD | {"Age": 44.0}), "SUCCESS"),
        (json.dumps(GOOD | {"more": 1}), "REDUNDANT_KEY"),
        ('{"Age": 44, "age": 45, "blood pressure": 120.5, "Pain/Type": "none", "status": "ill"}', "REDUNDANT_KEY"),
        (json.dumps(WITHOUT_AGE), "MISSING_KEY"),
        (json.dumps(WITHOUT_AGE | {"more": 1}), "MISSING_KEY"),
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
    read_status, row = extract(text, table()[0])
    assert read_status == status
    assert (row is not None) == (status == "SUCCESS")
    if row is not None:
        assert row == GOOD
        assert list(row) == HEADER
