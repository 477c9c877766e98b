"""Test which tokens of a conversation are trained on, with chat templates of several kinds."""

import pytest
from transformers import PreTrainedTokenizerFast

from tests.conversations import ASSISTANT_TURNS, TALK, labelled, whole
from workflow_scripts.core import chat
from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.init_model import train_tokenizer

# Contents are trimmed, and no white space stands between turns.
LLAMA_3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
# Nothing opens the assistant's turn, and a space belongs to it.
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
# Turns have a beginning and no end.
WITHOUT_END = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)


@pytest.mark.parametrize("name", ["chatml", "marked", "pad_is_eos", "unmarked_end"])
def test_the_assistants_turns_and_their_ends_are_labelled_and_nothing_else(tokenizers, name):
    tokenizer = tokenizers[name]
    row = chat.encode_turns(tokenizer, "chat", TALK, 2)

    assert row["prompt_text"] == tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert row["prompt_tokens"] == tokenizer.encode(row["prompt_text"], add_special_tokens=False)
    assert labelled(tokenizer, row) == ASSISTANT_TURNS
    assert whole(tokenizer, row) + "\n" == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert row["tokens"][-1] == tokenizer.eos_token_id
    assert row["mask"][-1] == 1


def test_the_mask_of_a_marked_template_is_that_of_transformers(tokenizers):
    tokenizer = tokenizers["marked"]
    theirs = tokenizer.apply_chat_template(
        TALK, return_dict=True, return_assistant_tokens_mask=True, add_special_tokens=False
    )
    ours = chat.encode_turns(tokenizer, "chat", TALK, 2)

    assert labelled(tokenizer, {"tokens": theirs["input_ids"], "mask": theirs["assistant_masks"]}) == ASSISTANT_TURNS
    assert theirs["input_ids"][: -len(tokenizer.encode("\n"))] == ours["prompt_tokens"] + ours["tokens"]


@pytest.mark.parametrize(
    ("template", "first", "last"),
    [
        (LLAMA_3, "你好 🙂<|im_end|>", "It is 4.<|im_end|>"),
        (MISTRAL, " \n你好 🙂 <|im_end|>", " It is 4.\n<|im_end|>"),
        (WITHOUT_END, "\n你好 🙂", "It is 4.<|im_end|>"),
    ],
    ids=["llama_3", "mistral", "without_end"],
)
def test_templates_in_the_style_of_well_known_models(tokenizers, monkeypatch, template, first, last):
    tokenizer = tokenizers["chatml"]
    monkeypatch.setattr(tokenizer, "chat_template", template)

    row = chat.encode_turns(tokenizer, "chat", TALK[1:], 1)

    assert labelled(tokenizer, row) == [first, last]


def test_without_a_closing_token_the_last_answer_still_ends_with_eos(tokenizers):
    tokenizer = tokenizers["no_end"]
    assert labelled(tokenizer, chat.encode_turns(tokenizer, "chat", TALK, 2)) == ["\n你好 🙂", "It is 4.<|im_end|>"]


def test_a_turn_that_another_token_closes_ends_with_eos_too(tokenizers):
    tokenizer = tokenizers["base"]
    first, last = ASSISTANT_TURNS
    assert labelled(tokenizer, chat.encode_turns(tokenizer, "chat", TALK, 2)) == [first, last + "<eos>"]


@pytest.mark.parametrize("name", ["chatml", "marked"])
def test_only_turns_from_the_answers_start_are_labelled(tokenizers, name):
    row = chat.encode_turns(tokenizers[name], "chat", TALK, 4)

    assert labelled(tokenizers[name], row) == ASSISTANT_TURNS[1:]
    assert row["prompt_text"].count("assistant") == 2


def test_a_template_that_rewrites_earlier_turns_is_an_error_unless_it_marks_them(tokenizers):
    talk = [m | {"content": "Hm.</think>" + m["content"]} if m["role"] == "assistant" else m for m in TALK]

    with pytest.raises(BadInput, match=r"'chat' writes the text up to message 3 differently .* \{% generation %\}"):
        chat.encode_turns(tokenizers["forgetful"], "chat", talk, 2)

    row = chat.encode_turns(tokenizers["forgetful_marked"], "chat", talk, 2)
    first, last = ASSISTANT_TURNS
    assert labelled(tokenizers["forgetful_marked"], row) == [first, "Hm.</think>" + last]


@pytest.mark.parametrize("template", ["deepseek", "alpaca"])
def test_named_templates_are_repeated_with_eos_after_each_answer(tokenizers, template):
    tokenizer = tokenizers["plain"]
    row = chat.encode_turns(tokenizer, template, TALK[1:], 1)

    assert labelled(tokenizer, row) == ["\n你好 🙂 <eos>", "It is 4.\n<eos>"]
    expected = [render(template, TALK[i]["content"]) + TALK[i + 1]["content"] + "<eos>" for i in (1, 3)]
    assert whole(tokenizer, row) == "".join(expected)

    with pytest.raises(Reject, match=r"message 1 is by 'system'; user and assistant must take turns"):
        chat.encode_turns(tokenizer, template, TALK, 2)


def test_the_beginning_of_an_answer_belongs_to_the_prompt(tokenizers):
    tokenizer = tokenizers["chatml"]
    prompt = [TALK[1], {"role": "assistant", "content": "```python\n"}]
    row = chat.encode_answer(tokenizer, "chat", prompt, [("print(4)\n```\n", True)])

    opened = tokenizer.apply_chat_template(prompt[:1], tokenize=False, add_generation_prompt=True)
    assert row["prompt_text"] == opened + "```python\n"
    assert labelled(tokenizer, row) == ["print(4)\n```\n<|im_end|>"]
    assert row["answer"] == "print(4)\n```\n"
    assert chat.encode_turns(tokenizer, "chat", [*prompt, {"role": "assistant", "content": row["answer"]}], 2) == row


def test_a_tokenizer_without_chat_template_is_an_error_for_every_record(tokenizers):
    with pytest.raises(BadInput, match=r"no chat template; use a named one: deepseek, alpaca"):
        chat.encode_turns(tokenizers["plain"], "chat", TALK, 2)


def test_a_continuation_is_what_stands_between_two_turns_of_the_assistant(tokenizers):
    tokenizer = tokenizers["chatml"]
    between = chat.continuation(tokenizer, "chat", "And\n2+2?")
    assert between == "\n<|im_start|>user\nAnd\n2+2?<|im_end|>\n<|im_start|>assistant\n"

    row = chat.encode_turns(tokenizer, "chat", TALK, 2)
    assert between.join(ASSISTANT_TURNS) == row["answer"] + "<|im_end|>"


def test_a_prompt_begins_with_bos_where_the_tokenizer_begins_texts_with_it():
    from tokenizers import processors

    trained = train_tokenizer(["What is 2+2? It is 4."] * 3, 300).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<eos>", bos_token="<s>")
    bare = tokenizer.encode("2+2?", add_special_tokens=False)
    assert encode_prompt(tokenizer, "2+2?") == bare  # it has a BOS, but does not use it

    begin = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    assert encode_prompt(tokenizer, "2+2?") == [tokenizer.bos_token_id, *bare]
    assert encode_prompt(tokenizer, "<s>2+2?") == [tokenizer.bos_token_id, *bare]  # a chat template's own
