"""A reward model trained on generated pairs: its accuracy on held-out pairs.

    python -m benchmarks.rewards reward_model

Both answers of a pair state the same sum, one politely and one rudely, in words that vary. The model is a Llama of two
layers with random weights, trained on a CPU by the stage train_reward_model.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from workflow_scripts.core.files import read_json
from workflow_scripts.init_model import train_tokenizer

PAIRS = 800
POLITE = ("Thank you for asking.", "Gladly.", "With pleasure.", "Of course, here it is.", "What a nice question!")
RUDE = ("Leave me alone.", "What a question.", "Look it up.", "Of course you do not know it.", "Not again!")
SETTINGS = {"lr": 1e-3, "batch_size": 16, "epochs": 2, "threads": 1, "held_out": 0.25, "least_accuracy": 0.5}


def pairs() -> list[dict[str, str]]:
    """Return generated preference pairs."""
    rng = random.Random(0)
    rows = []

    for _ in range(PAIRS):
        a, b = rng.randrange(100), rng.randrange(100)
        polite, rude = (f"{rng.choice(words)} {a} + {b} = {a + b}." for words in (POLITE, RUDE))
        rows.append({"prompt": f"What is {a} + {b}?", "chosen": polite, "rejected": rude})

    return rows


def save_base(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write a small Llama with random weights, and its tokenizer."""
    set_seed(0)
    tokenizer = train_tokenizer([" ".join(row.values()) for row in rows[:100]], 384)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure() -> list[dict[str, Any]]:
    """Return the accuracy on held-out pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = pairs()
        save_base(folder / "base", rows)
        (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

        output = folder / "reward_model/checkpoint.json"
        settings = json.dumps(SETTINGS | {"file": str(folder / "pairs.jsonl")})
        command = [sys.executable, "-m", "workflow_scripts.train_reward_model", "--model", str(folder / "base")]
        command += ["--settings", settings, "--state", str(folder / "state"), "--output", str(output)]
        subprocess.run(command, check=True)
        certificate = read_json(output)["certificate"]

    return [
        {
            "name": "reward_model_held_out_accuracy",
            "value": certificate["accuracy"],
            "interval": [certificate["low"], certificate["high"]],
            "unit": "share",
        }
    ]
