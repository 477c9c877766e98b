"""Which tokens of a conversation are trained on, with chat templates of several kinds."""

import pytest
from conversations import SAID, TALK, labelled, whole
from transformers import PreTrainedTokenizerFast

from workflow_scripts.core import chat
from workflow_scripts.core.chat import Reject
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.init_model import train_tokenizer


@pytest.mark.parametrize("name", ["chatml", "marked", "pad_is_eos", "unmarked_end"])
def test_the_assistants_turns_and_their_ends_are_labelled_and_nothing_else(tokenizers, name):
    tokenizer = tokenizers[name]
    row = chat.encode_turns(tokenizer, "chat", TALK, 2)
    assert row["req"] == tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert row["prompt_tokens"] == tokenizer.encode(row["req"], add_special_tokens=False)
    assert labelled(tokenizer, row) == SAID
    assert whole(tokenizer, row) + "\n" == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert row["tokens"][-1] == tokenizer.eos_token_id and row["mask"][-1] == 1


def test_the_mask_of_a_marked_template_is_that_of_transformers(tokenizers):
    theirs = tokenizers["marked"].apply_chat_template(
        TALK, return_dict=True, return_assistant_tokens_mask=True, add_special_tokens=False
    )
    assert labelled(tokenizers["marked"], {"tokens": theirs["input_ids"], "mask": theirs["assistant_masks"]}) == SAID
    ours = chat.encode_turns(tokenizers["marked"], "chat", TALK, 2)
    assert theirs["input_ids"][: -len(tokenizers["marked"].encode("\n"))] == ours["prompt_tokens"] + ours["tokens"]


@pytest.mark.parametrize(
    ("template", "first", "last"),
    [
        # Llama 3: contents trimmed, no white space between turns
        ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
         "你好 🙂<|im_end|>", "It is 4.<|im_end|>"),
        # Mistral: nothing opens the assistant's turn, and a space belongs to it
        ("{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
         "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}",
         " \n你好 🙂 <|im_end|>", " It is 4.\n<|im_end|>"),
        # the start of a turn, no end
        ("{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}", "\n你好 🙂", "It is 4.<|im_end|>"),
    ],
)  # fmt: skip
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
    assert labelled(tokenizer, chat.encode_turns(tokenizer, "chat", TALK, 2)) == [SAID[0], SAID[1] + "<eos>"]


def test_only_turns_from_the_answers_start_are_labelled(tokenizers):
    for name in ("chatml", "marked"):
        row = chat.encode_turns(tokenizers[name], "chat", TALK, 4)
        assert labelled(tokenizers[name], row) == SAID[1:]
        assert row["req"].count("assistant") == 2


def test_a_template_that_rewrites_what_was_said_is_an_error_unless_it_marks_it(tokenizers):
    talk = [m | {"content": "Hm.</think>" + m["content"]} if m["role"] == "assistant" else m for m in TALK]
    with pytest.raises(BadInput, match=r"'chat' writes the text up to message 3 differently .* \{% generation %\}"):
        chat.encode_turns(tokenizers["forgetful"], "chat", talk, 2)
    row = chat.encode_turns(tokenizers["forgetful_marked"], "chat", talk, 2)
    assert labelled(tokenizers["forgetful_marked"], row) == [SAID[0], "Hm.</think>" + SAID[1]]


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
    tokenizer, prompt = tokenizers["chatml"], [TALK[1], {"role": "assistant", "content": "```python\n"}]
    row = chat.encode_answer(tokenizer, "chat", prompt, [("print(4)\n```\n", True)])
    asked = tokenizer.apply_chat_template(prompt[:1], tokenize=False, add_generation_prompt=True)
    assert row["req"] == asked + "```python\n"
    assert labelled(tokenizer, row) == ["print(4)\n```\n<|im_end|>"] and row["output"] == "print(4)\n```\n"
    assert chat.encode_turns(tokenizer, "chat", [*prompt, {"role": "assistant", "content": row["output"]}], 2) == row


def test_a_tokenizer_without_chat_template_is_an_error_for_every_record(tokenizers):
    with pytest.raises(BadInput, match=r"no chat template; named ones are deepseek, alpaca"):
        chat.encode_turns(tokenizers["plain"], "chat", TALK, 2)


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
