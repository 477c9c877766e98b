"""Conversations, tokenizers with chat templates of several kinds, and files of training data in several formats."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from workflow_scripts.config.sections import Source
from workflow_scripts.core import formats
from workflow_scripts.core.files import write_parquet
from workflow_scripts.core.records import Piece
from workflow_scripts.init_model import train_tokenizer

# ---------------------------------------------------------------- templates and tokenizers

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Reasoning models have such templates: earlier answers lose what stands before </think>.
FORGETFUL = CHATML.replace(
    "{{ m['content'] }}",
    "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'].split('</think>')[-1] }}",
)
FORGETFUL_MARKED = MARKED.replace(
    "{% generation %}{{ m['content'] }}",
    "{% generation %}{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}",
)
UNMARKED_END = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """Return tokenizers by the name of their chat template.

    `plain` has no template. `base` ends texts with <eos>, and all others end turns with <|im_end|>, which also pads in
    `pad_is_eos`.
    """
    trained = train_tokenizer(["What is 2+2? It is 4.", "assistant user system"] * 3, 300)

    def make(template: str | None, eos: str = "<|im_end|>", pad: str = "<pad>") -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=trained.backend_tokenizer,
            clean_up_tokenization_spaces=False,
            eos_token=eos,
            pad_token=pad,
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        )
        tokenizer.chat_template = template
        return tokenizer

    return {
        "plain": make(None, "<eos>"),
        "base": make(CHATML, "<eos>"),
        "chatml": make(CHATML),
        "marked": make(MARKED),
        "pad_is_eos": make(CHATML, pad="<|im_end|>"),
        "forgetful": make(FORGETFUL),
        "forgetful_marked": make(FORGETFUL_MARKED),
        "unmarked_end": make(UNMARKED_END),
        "no_end": make(CHATML.replace("<|im_end|>", "")),
    }


# ---------------------------------------------------------------- a conversation

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße, 你好 🙂?"},
    {"role": "assistant", "content": "\n你好 🙂 "},
    {"role": "user", "content": "And\n2+2?"},
    {"role": "assistant", "content": "It is 4.\n"},
]
ASSISTANT_TURNS = ["\n你好 🙂 <|im_end|>", "It is 4.\n<|im_end|>"]


def labelled(tokenizer, row: dict[str, Any]) -> list[str]:
    """Return the runs of tokens with mask 1, as texts."""
    runs: list[list[int]] = []
    last = 0

    for token, is_sampled in zip(row["tokens"], row["mask"], strict=True):
        if is_sampled and not last:
            runs.append([])
        if is_sampled:
            runs[-1].append(token)
        last = is_sampled

    return [tokenizer.decode(run) for run in runs]


def whole(tokenizer, row: dict[str, Any]) -> str:
    """Return a row's prompt and answer as text."""
    return tokenizer.decode(row["prompt_tokens"] + row["tokens"])


# ---------------------------------------------------------------- files in several formats


def saved(path: Path, records: list[dict[str, Any]]) -> str:
    """Write records as Parquet or as JSON lines, by the path's suffix, and return the path."""
    if path.suffix == ".parquet":
        write_parquet(path, records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def one_piece(text: str) -> list[Piece]:
    """Return an answer as a single piece by the policy."""
    return [(text, True)]


def read(file: Any, form: str, tokenizer, template: str = "deepseek", segments=one_piece, **keys: Any) -> tuple:
    """Return (training rows, rejects) of a file in a format."""
    source = Source(file=str(file), format=form, **keys).model_dump()
    return formats.read_rows(source, tokenizer, template, segments)


def rows_of(*arguments: Any, **keys: Any) -> list[dict[str, Any]]:
    """Return the training rows of a file in a format; the arguments are those of `read`."""
    return read(*arguments, **keys)[0]


def rewarded_record(
    uid: str = "a", reward: Any = 1.0, response: str = "print(4)\n", question: str = "2+2?"
) -> dict[str, Any]:
    """Return a record of CodeRL's file, whose prompt ends with the beginning of the answer."""
    prompt = [{"role": "user", "content": question}, {"role": "assistant", "content": "```python\n"}]
    return {
        "uid": uid,
        "prompt_pretokenized": json.dumps(prompt),
        "accuracy": reward,
        "unprocessed_response": response,
    }
