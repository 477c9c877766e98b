"""A published round: transformers and datasets load it, and its cards say what the manifests say."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.harness import NOTHING_TO_DO, Copy, jobs, tiny_config
from workflow_scripts.config.sections import Publish
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.publishing.facts import Facts, licence_of_card
from workflow_scripts.publishing.rows import publish_rows
from workflow_scripts.publishing.weights import publish_weights


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory) -> Copy:
    """Return a copy of the finished run whose round 1 is published."""
    import shutil

    folder = tmp_path_factory.mktemp("published") / "copy"
    shutil.copytree(finished.folder, folder, symlinks=True)
    copy = Copy.at(folder)
    output = copy.snakemake("round1_publish")
    assert jobs(output) == {"publish", "round1_publish"}
    return copy


def front_matter(card: Path) -> dict:
    match = re.match(r"---\n(.*?)\n---\n", card.read_text(), re.S)
    assert match
    return yaml.safe_load(match[1])


def test_transformers_loads_the_model_in_bf16(published):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = published.path("published/r1/model")
    source = published.path("checkpoints/r1/model")
    ours = AutoModelForCausalLM.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(source)

    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    weights = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(weights[name], tensor.to(torch.bfloat16)), name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("User: 1 + 2") == AutoTokenizer.from_pretrained(source).encode("User: 1 + 2")


def test_datasets_loads_the_training_data(published):
    from datasets import load_dataset

    data = load_dataset(str(published.path("published/r1/data")))
    rows = read_pickle(next(published.path("data").glob("offline_*_r1_*.pkl")))

    assert set(data) == {"cold_start", "round1"}
    assert [row["uid"] for row in data["round1"]] == [row["uid"] for row in rows]
    assert [row["tokens"] for row in data["round1"]] == [list(row["tokens"]) for row in rows]
    assert [row["advantage"] for row in data["round1"]] == [row["advantage"] for row in rows]
    assert data["cold_start"].num_rows == len(read_pickle(published.path("data/sft_arithmetic.pkl")))


def test_the_cards_say_what_the_manifests_say(published):
    from huggingface_hub import DatasetCard, ModelCard

    folder = published.path("published/r1")
    text = (folder / "model/README.md").read_text()
    assert ModelCard.load(folder / "model/README.md").data.library_name == "transformers"
    assert DatasetCard.load(folder / "data/README.md").data.to_dict()["configs"]

    evaluation = read_json(published.path("evaluation/r1.json"))
    assert f"| 1 | {evaluation['accuracy']:.1%}" in text
    for checkpoint in ("r0", "r1"):
        assert read_json(published.path(f"checkpoints/{checkpoint}/checkpoint.json"))["digest"] in text
    for manifest in published.path("data").glob("*_arithmetic.json"):
        assert read_json(manifest)["sha256"] in text
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    assert config == read_json(published.path("config.json"))
    assert "- `objective`: clip" in text


def test_it_is_made_once_and_verified(published):
    assert NOTHING_TO_DO in published.snakemake("round1_publish")
    assert "publish.json" not in published.snakemake("verify")  # sound artefacts are not listed


def test_the_licences_of_the_config_and_of_readme_files_count(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/README.md").write_text("---\nlicense: cc-by-4.0\ntags: [a]\n---\n# Data\n")
    for name in ("data/train.jsonl", "eval.jsonl"):
        (tmp_path / name).write_text("{}\n")
    run = tmp_path / "run"
    sources = {"train": {"file": str(tmp_path / "data/train.jsonl")}, "eval": {"file": str(tmp_path / "eval.jsonl")}}
    write_json(run / "prompts/train.json", {"settings": sources, "inputs": {}})
    write_json(run / "checkpoints/init/checkpoint.json", {"settings": {"path": "owner/model"}, "digest": "0123"})

    settings = Publish(licences={"owner/model": "apache-2.0"})
    facts = Facts(run, "math", 1, settings, {})

    licences = {Path(row["name"]).name: row["licence"] for row in facts.sources}
    assert licences == {"train.jsonl": "cc-by-4.0", "eval.jsonl": "unknown"}
    assert facts.base["licence"] == "apache-2.0"
    assert facts.unknown_licences() == [str(tmp_path / "eval.jsonl")]


@pytest.mark.parametrize("text", ["# No front matter", "---\nlicense: [\n---\n", "---\n- 1\n---\n"])
def test_a_card_without_a_licence_is_no_error(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert licence_of_card(tmp_path / "README.md") is None


def test_references_that_are_no_text_become_json_and_pairs_stay_together(tmp_path):
    row = {"uid": "a.chosen", "prompt_text": "p", "answer": "x", "pair": "a", "reference": ["é", "b"]}
    write_pickle(tmp_path / "pairs.pkl", [row, row | {"uid": "a.rejected", "reference": "text"}])

    assert publish_rows({"round1": tmp_path / "pairs.pkl"}, tmp_path / "data") == {"round1": 2}

    from datasets import load_dataset

    rows = list(load_dataset(str(tmp_path / "data"))["train"])
    assert json.loads(rows[0]["reference"]) == ["é", "b"] and rows[1]["reference"] == "text"
    assert [r["pair"] for r in rows] == ["a", "a"] and rows[0]["reward"] is None


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match="no safetensors files"):
        publish_weights(tmp_path / "model", tmp_path / "published")


def test_any_round_is_published_by_name(tmp_path):
    copy = Copy(tmp_path / "names", tiny_config())
    assert {"publish", "train"} <= jobs(copy.snakemake("-n", "round1_publish"))
