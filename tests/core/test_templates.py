"""Variables of chat templates, and templates that write a date."""

import datetime

import pytest

from tests.harness import tiny_config
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core import chat
from workflow_scripts.core.templates import render, with_variables

TALK = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "."}]

# The date as in the template of Llama 3.2, and the clock itself, with turns that the template marks or not.
DATED = """
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{{- "Today Date: " + date_string + ", " + strftime_now("%Y-%m-%d") + "\n" }}
{%- if mood is defined %}{{- mood }}{%- endif %}
{%- for message in messages %}{{- "<" + message.role + ">" }}BEGIN{{- message.content }}{{- eos_token }}END{%- endfor %}
{%- if add_generation_prompt %}{{- "<assistant>" }}{%- endif %}"""
PLAIN = DATED.replace("BEGIN", "").replace("END", "")
MARKED = DATED.replace("BEGIN", "{% generation %}").replace("END", "{% endgeneration %}")


class Tomorrow(datetime.datetime):
    """A clock that is years ahead."""

    @classmethod
    def now(cls, tz=None):
        return cls(2031, 1, 2, tzinfo=tz)


@pytest.fixture(params=[PLAIN, MARKED], ids=["plain", "marked"])
def dated(request, tokenizers, monkeypatch):
    """Return a tokenizer whose template writes the date."""
    monkeypatch.setattr(tokenizers["chatml"], "chat_template", request.param)
    return tokenizers["chatml"]


def test_prompts_and_rows_do_not_depend_on_the_day(dated, monkeypatch):
    today = render("chat", "?", dated), chat.encode_turns(dated, "chat", TALK, 1)
    theirs = dated.apply_chat_template(TALK[:1], tokenize=False)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert (render("chat", "?", dated), chat.encode_turns(dated, "chat", TALK, 1)) == today
    assert dated.apply_chat_template(TALK[:1], tokenize=False) != theirs  # the clock was really moved
    assert today[0].startswith("Today Date: 26 Jul 2024, 2024-07-26\n")


def test_variables_reach_the_template_everywhere(dated):
    template = with_variables("chat", {"date_string": "1 Jan 2025", "mood": "!"})
    prompt = render(template, "?", dated)
    assert prompt.startswith("Today Date: 1 Jan 2025, 2024-07-26\n!")

    row = chat.encode_turns(dated, template, TALK, 1)
    assert row["prompt_text"] == prompt
    assert chat.continuation(dated, template, "?")


def test_the_config_passes_variables_on_with_the_name():
    cfg = load(tiny_config(template="chat", template_variables={"enable_thinking": False}))
    assert cfg.full_template == 'chat {"enable_thinking": false}'
    assert load(tiny_config()).full_template == "deepseek"  # as before there were variables

    with pytest.raises(ConfigError, match="template_variables: the template deepseek has none"):
        load(tiny_config(template_variables={"enable_thinking": False}))
