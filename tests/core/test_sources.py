"""Records come from files, folders of `datasets`, folders laid out like the hub, and the hub."""

import shutil

import datasets
import pytest

from workflow_scripts import init_model
from workflow_scripts.config.sections import Prompts
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_dataset, write_jsonl, write_parquet
from workflow_scripts.core.sources import is_on_hub, records_of, state_of
from workflow_scripts.freeze_prompts import freeze
from workflow_scripts.init_model import existing_model
from workflow_scripts.tasks.math.prompts import Prompts as MathPrompts

ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(5)]
README = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Let `datasets` keep what it prepares in a folder of this test, and forget what other tests have read."""
    monkeypatch.setattr("workflow_scripts.core.sources._commits", {})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def hub_layout(tmp_path):
    """Return a folder with the files of openai/gsm8k."""
    folder = tmp_path / "gsm8k"
    for name, rows in {"main/train": ROWS, "main/test": ROWS[:2], "socratic/train": ROWS[:1]}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(folder / f"{name}-00000-of-00001.parquet", rows)
    (folder / "README.md").write_text(README)
    return str(folder)


def read(file, **keys) -> list[dict]:
    return [dict(record) for record in records_of({"file": str(file)} | keys)]


def test_files_and_saved_folders_are_read(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_dataset(tmp_path / "saved", train=ROWS, test=ROWS[:3])

    assert read(tmp_path / "a.jsonl") == read(tmp_path / "saved") == ROWS
    assert read(tmp_path / "saved", split="test") == ROWS[:3]
    with pytest.raises(BadInput, match="there is no split 'dev'; splits are train, test"):
        read(tmp_path / "saved", split="dev")


def test_a_folder_in_the_hubs_layout_has_subsets_and_splits(hub_layout):
    assert read(hub_layout, subset="main") == ROWS
    assert read(hub_layout, subset="main", split="test") == ROWS[:2]
    assert read(hub_layout, subset="socratic") == ROWS[:1]
    with pytest.raises(BadInput, match="Config name is missing"):
        read(hub_layout)


def test_a_changed_file_within_a_folder_is_noticed(hub_layout):
    before = state_of(hub_layout)
    assert state_of(hub_layout) == before
    write_parquet(f"{hub_layout}/main/test-00000-of-00001.parquet", ROWS[:4])
    assert state_of(hub_layout) != before


def test_what_cannot_be_loaded_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()

    with pytest.raises(BadInput, match=r"openai/gsm8k: the data set cannot be loaded.*HF_HOME.*HF_TOKEN"):
        read("openai/gsm8k", subset="main")
    with pytest.raises(BadInput, match=r"model\.path: Qwen/Qwen0 cannot be loaded.*HF_HOME.*HF_TOKEN"):
        existing_model("Qwen/Qwen0", None)
    with pytest.raises(BadInput, match="empty: the data set cannot be loaded"):
        read(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"there is no file ./gone\.jsonl"):
        read("./gone.jsonl")


def test_the_commit_of_what_came_from_the_hub_is_in_the_manifest(hub_layout, tmp_path, monkeypatch):
    """The cache is as `datasets` leaves it after a download: its folder has the name of the commit."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    commit = "e53f048856ff4f594e959d75785d2c2d37b678ee"
    assert read(hub_layout, subset="main") == ROWS
    (prepared,) = (tmp_path / "cache").rglob("gsm8k-train.arrow")
    shutil.copytree(prepared.parent, tmp_path / "cache/openai___gsm8k/main/0.0.0" / commit)

    split = {"file": "openai/gsm8k", "subset": "main"}
    settings = Prompts.model_validate({"train": split | {"split": "train"}, "eval": split | {"split": "test"}})
    freeze(MathPrompts({}, {}), settings, 0, tmp_path / "prompts")
    for name in ("train", "eval"):
        assert read_json(tmp_path / f"prompts/{name}.json")["commits"] == {"openai/gsm8k": commit}


def test_the_commit_of_a_model_of_the_hub_is_in_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--lab--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("0123abc")
    (cache / "snapshots/0123abc").mkdir(parents=True)
    (cache / "snapshots/0123abc/config.json").write_text("{}")

    output = tmp_path / "init/checkpoint.json"
    monkeypatch.setattr(
        "sys.argv", ["init_model", "--task", "math", "--settings", '{"path": "lab/model"}', "--output", str(output)]
    )
    init_model.main()
    assert read_json(output)["commits"] == {"lab/model": "0123abc"}


def test_names_on_the_hub_look_unlike_files():
    assert [is_on_hub(name) for name in ("openai/gsm8k", "a.jsonl", "./a", "/a", "~/a")] == [True] + [False] * 4
