"""Records come from files, folders of `datasets`, folders laid out like the hub, and the hub."""

import datasets
import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_dataset, write_jsonl, write_parquet
from workflow_scripts.core.sources import is_on_hub, records_of, state_of
from workflow_scripts.init_model import existing_model

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
    """Let `datasets` keep what it prepares in a folder of this test."""
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


def test_names_on_the_hub_look_unlike_files():
    assert [is_on_hub(name) for name in ("openai/gsm8k", "a.jsonl", "./a", "/a", "~/a")] == [True] + [False] * 4
