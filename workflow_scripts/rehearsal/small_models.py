"""Make a tiny random encoder, or a tiny reward model, in place of one on the hub.

The encoder is a BERT with a tokenizer of letters. The reward model is a Qwen2 with one output and a chat template.

    python -m workflow_scripts.rehearsal.small_models --kind encoder --output /tmp/encoder
"""

import string
from pathlib import Path
from typing import Any

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.rehearsal.families import description_of
from workflow_scripts.rehearsal.stand_in import make_tokenizer, small_config

FAMILY = "Qwen/Qwen2.5-7B-Instruct"  # of the reward model


def make_encoder(folder: Path) -> None:
    """Write a BERT of two layers whose tokenizer knows letters and digits."""
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = [piece for letter in string.ascii_lowercase + string.digits for piece in (letter, f"##{letter}")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *string.punctuation]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=512)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_reward_model(folder: Path) -> None:
    """Write a sequence classifier with one output and a chat template."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    description = description_of(FAMILY)
    tokenizer = make_tokenizer(description, [string.printable])
    values: dict[str, Any] = small_config(description["config"]) | {"vocab_size": len(tokenizer), "num_labels": 1}
    values["pad_token_id"] = tokenizer.pad_token_id
    values.pop("model_type")
    Qwen2ForSequenceClassification(Qwen2Config(**values)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


KINDS = {"encoder": make_encoder, "reward": make_reward_model}


def main() -> None:
    import torch

    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True, help="what it is used for")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    args = parser.parse_args()

    torch.manual_seed(0)
    KINDS[args.kind](args.output)


if __name__ == "__main__":
    run(main)
