"""A reward model that is trained from generated preference pairs, certified, and used as a reward."""

import json
import random

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from workflow_scripts import train_reward_model
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import read_records
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.rewards._parts import load_part, values

POLITE = ("Thank you for asking.", "Gladly.", "With pleasure.")
RUDE = ("Leave me alone.", "What a question.", "Look it up.")


def pairs(count):
    """Return questions with a polite and a rude answer. The sum is right in both."""
    rng = random.Random(0)
    rows = []

    for _ in range(count):
        a, b = rng.randrange(50), rng.randrange(50)
        texts = [f"{rng.choice(words)} It is {a + b}." for words in (POLITE, RUDE)]
        rows.append({"prompt": f"What is {a} + {b}?", "chosen": texts[0], "rejected": texts[1]})

    return rows


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that trains on pairs and returns the folder of the reward model."""
    set_seed(0)
    base = tmp_path / "base"
    tokenizer = train_tokenizer([f"{row['prompt']} {row['chosen']} {row['rejected']}" for row in pairs(40)], 384)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(base)
    tokenizer.save_pretrained(base)

    def trained(rows, **settings):
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        values = {"file": str(file), "lr": 1e-3, "batch_size": 16, "threads": 1, "held_out": 0.25} | settings
        output = tmp_path / "rm/checkpoint.json"
        options = ["--model", base, "--settings", json.dumps(values), "--state", tmp_path / "state", "--output", output]
        monkeypatch.setattr("sys.argv", ["train_reward_model", *map(str, options)])
        train_reward_model.main()
        return output.parent

    return trained


def test_a_reward_model_learns_what_is_preferred(train):
    rows = [*pairs(400), {"prompt": "Same?", "chosen": "Yes.", "rejected": "Yes."}]
    folder = train(rows, epochs=2, least_accuracy=0.9)
    manifest = read_json(folder / "checkpoint.json")
    certificate = manifest["certificate"]

    assert certificate["accuracy"] >= 0.9
    assert certificate["low"] <= certificate["accuracy"] <= certificate["high"]
    assert certificate["pairs"] + manifest["rows"] == 400
    assert manifest["rejects"] == 1
    [reject] = read_records(folder / "pairs.rejects.jsonl")
    assert reject == {"record": 400, "reason": "chosen and rejected are the same"}

    answers = [
        {"uid": f"{number}.{side}", "question": row["prompt"], "answer": row[side], "reference": None}
        for number, row in enumerate(pairs(420)[400:])
        for side in ("chosen", "rejected")
    ]
    scores = [row["value"] for row in values("reward_model", load_part("reward_model", f"{folder}/model", {}), answers)]
    assert sum(chosen > rejected for chosen, rejected in zip(scores[::2], scores[1::2])) >= 18


def test_a_model_below_the_least_accuracy_is_not_published(train, tmp_path):
    with pytest.raises(BadInput, match=r"held-out pairs, but train_reward_model\.least_accuracy is 100%"):
        train(pairs(40), lr=1e-9, least_accuracy=1.0)
    assert not (tmp_path / "rm/checkpoint.json").exists()


def test_wrong_columns_are_named(train):
    with pytest.raises(BadInput, match="has no 'rejected', only prompt, chosen"):
        train([{"prompt": "a", "chosen": "b"}])
