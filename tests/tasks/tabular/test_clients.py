"""The data of task models, as the stage gen_sftfed writes it for one client and for several."""

from pathlib import Path

import pytest

from tests.tasks.tabular.people import table
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_text
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular import gen_sftfed
from workflow_scripts.tasks.tabular.schemas import as_text, write_csv


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function: run the stage and return the questions of each file it wrote, by name."""
    schema, rows = table(120)
    folder = tmp_path / "mine"
    write_text(folder / "schema.json", schema.model_dump_json())
    write_csv(folder / "train.csv", schema, rows[:80])
    write_csv(folder / "test.csv", schema, rows[80:100])
    write_csv(tmp_path / "synthetic.csv", schema, rows[100:])

    def write(*options, synthetic=False, name="out"):
        output = tmp_path / name
        arguments = ["--tables", folder, "--output", output, "--shots", 1, *options]
        arguments += ["--synthetic", tmp_path / "synthetic.csv"] if synthetic else []
        monkeypatch.setattr("sys.argv", ["gen_sftfed", *map(str, arguments)])
        gen_sftfed.main()
        return {path.name.removeprefix("mine_").removesuffix(".jsonl"): list(read_records(path))
                for path in Path(output).glob("*.jsonl")}  # fmt: skip

    return write


def rows_asked_about(questions) -> list[str]:
    return [question["prompt"].splitlines()[-1] for question in questions]


def labels(questions) -> set[str]:
    return {question["response"] for question in questions}


def test_one_client_has_one_file_for_each_fold(write):
    files = write()
    assert {name: len(questions) for name, questions in files.items()} == {
        "fold_all": 80,
        "client_0.train": 80,
        "client_0.test": 20,
    }
    synthetic = write(synthetic=True, name="round")
    assert set(synthetic) == {"fold_0", "fold_1"}
    assert not set(rows_asked_about(synthetic["fold_0"])) & set(rows_asked_about(synthetic["fold_1"]))


def test_clients_share_the_rows_out_and_see_their_own_only(write):
    files = write("--clients", 3, "--alpha", 0.1, "--task-rows", 400)
    trained = [files[f"client_{client}.train"] for client in range(3)]
    assert "fold_all" not in files
    assert sum(map(len, trained)) == pytest.approx(400, abs=2)
    assert sum(len(files[f"client_{client}.test"]) for client in range(3)) == 20

    own = [set(rows_asked_about(questions)) for questions in trained]
    assert not own[0] & own[1]
    for questions, rows in zip(trained, own):
        shown = {line.rsplit(" ", 1)[0] for question in questions for line in question["prompt"].splitlines()[1:-1]}
        assert shown <= rows

    synthetic = write("--clients", 3, "--alpha", 0.1, "--seed", 1, synthetic=True, name="round")
    assert set(synthetic) == {f"client_{client}.train_{fold}" for client in range(3) for fold in (0, 1)}
    for client, rows in enumerate(own):  # the examples are the client's own real rows in all rounds
        for question in synthetic[f"client_{client}.train_0"]:
            assert {line.rsplit(" ", 1)[0] for line in question["prompt"].splitlines()[1:-1]} <= rows


def test_fewer_synthetic_rows_than_clients_are_shared_by_several(write):
    files = write("--clients", 15, "--alpha", 10, synthetic=True)
    assert all(len(questions) >= 1 for questions in files.values())
    assert len(files) == 30


def test_alpha_and_method_decide_who_has_which_labels(write):
    skewed = write("--clients", 4, "--alpha", 0.05, name="skewed")
    even = write("--clients", 4, "--split-method", "iid", name="even")
    every = write("--clients", 4, "--split-method", "none", name="every")

    assert any(len(labels(skewed[f"client_{client}.train"])) == 1 for client in range(4))
    assert all(len(labels(even[f"client_{client}.train"])) == 2 for client in range(4))
    sizes = [len(even[f"client_{client}.train"]) for client in range(4)]
    assert max(sizes) - min(sizes) <= 2
    assert [len(every[f"client_{client}.train"]) for client in range(4)] == [80] * 4


def test_held_out_rows_are_never_shown(write):
    files = write("--held-out", 0.25)
    held_out = set(rows_asked_about(files["client_0.val"]))
    assert 10 <= len(held_out) <= 30
    for question in files["fold_all"]:
        lines = {line.rsplit("} ", 1)[0].removesuffix("}") + "}" for line in question["prompt"].splitlines()[1:]}
        assert not lines & held_out

    with pytest.raises(BadInput, match=r"tabular.held_out 0.001: too small a share of 80 rows"):
        write("--held-out", 0.001, name="few")


def test_a_val_file_is_held_out(write, tmp_path):
    schema, rows = table(130, seed=5)
    write_csv(tmp_path / "mine/val.csv", schema, rows[:7])
    files = write()
    assert len(files["client_0.val"]) == 7
    assert len(files["fold_all"]) == 80
    assert as_text({name: rows[0][name] for name in schema.features}) in rows_asked_about(files["client_0.val"])


def test_a_round_without_valid_rows_is_explained(write, tmp_path):
    schema, _ = table()
    write_csv(tmp_path / "synthetic.csv", schema, [])
    with pytest.raises(BadInput, match="none for fold 0 to learn from"):
        write(synthetic=True)
