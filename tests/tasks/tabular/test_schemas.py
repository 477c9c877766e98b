"""Schemas: what cells say of a table, which rows are trained and tested on, and answers read as rows."""

import json
import math

import pytest
from people import HEADER, people, schema_of, table

from workflow_scripts import split_tables
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.schemas import as_text, extract, read_csv, read_schema, read_table, typed, write_csv


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


def test_an_unseen_category_of_a_feature_is_kept():
    assert typed(table()[0], HEADER, ["50", "120.0", "Brand new", "ill"])[0]["Pain/Type"] == "Brand new"


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


# ---------------------------------------------------------------- the split


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


def test_equal_rows_lie_on_one_side_however_they_are_written():
    alike = [["1.0", "NA", "Ill"], ["1", "", " ill"], ["1.00", "?", "ILL"]]
    assert len({split_tables.in_test(cells, 0.5, seed) for seed in range(1) for cells in alike}) == 1
    sides = [{split_tables.in_test(cells, 0.5, seed) for cells in alike} for seed in range(20)]
    assert all(len(side) == 1 for side in sides) and len(set(map(frozenset, sides))) == 2


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
