"""Conversations, tokenizers with chat templates of several kinds, and what of a row is labelled."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from workflow_scripts.core.records import write_parquet
from workflow_scripts.init_model import train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# as reasoning models do it: earlier answers lose what stands before </think>
FORGETFUL = CHATML.replace(
    "{{ m['content'] }}",
    "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'].split('</think>')[-1] }}",
)
FORGETFUL_MARKED = MARKED.replace(
    "{% generation %}{{ m['content'] }}",
    "{% generation %}{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}",
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße, 你好 🙂?"},
    {"role": "assistant", "content": "\n你好 🙂 "},
    {"role": "user", "content": "And\n2+2?"},
    {"role": "assistant", "content": "It is 4.\n"},
]
SAID = ["\n你好 🙂 <|im_end|>", "It is 4.\n<|im_end|>"]


@pytest.fixture(scope="session")
def tokenizers():
    """{name: tokenizer} by chat template; `plain` has none, `base` ends texts with <eos>, all others turns with
    <|im_end|>, which also pads in `pad_is_eos`."""
    trained = train_tokenizer(["What is 2+2? It is 4.", "assistant user system"] * 3, 300)

    def one(template, eos="<|im_end|>", pad="<pad>"):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=trained.backend_tokenizer, clean_up_tokenization_spaces=False,
            eos_token=eos, pad_token=pad, additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        )  # fmt: skip
        tokenizer.chat_template = template
        return tokenizer

    return {
        "plain": one(None, "<eos>"), "base": one(CHATML, "<eos>"), "chatml": one(CHATML), "marked": one(MARKED),
        "pad_is_eos": one(CHATML, pad="<|im_end|>"), "forgetful": one(FORGETFUL),
        "forgetful_marked": one(FORGETFUL_MARKED),
        "unmarked_end": one(MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")),
        "no_end": one(CHATML.replace("<|im_end|>", "")),
    }  # fmt: skip


def labelled(tokenizer, row: dict) -> list[str]:
    """The runs of tokens with mask 1, as texts."""
    runs, last = [], 0
    for token, own in zip(row["tokens"], row["mask"], strict=True):
        if own:
            runs[len(runs) - 1 + (not last) :] = [[*(runs[-1] if last else []), token]]
        last = own
    return [tokenizer.decode(run) for run in runs]


def whole(tokenizer, row: dict) -> str:
    return tokenizer.decode(row["prompt_tokens"] + row["tokens"])


def saved(path, records: list[dict]) -> str:
    if path.suffix == ".parquet":
        write_parquet(path, records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)
