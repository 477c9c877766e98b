"""Convert a question into the exact text that a policy receives.

A template is given by its name. Variables of a tokenizer's own template follow the name as JSON:
`chat {"date_string": "1 Jan 2025"}` (config key `template_variables`).

Some templates write today's date, such as Llama 3.2's. Prompts made before and after midnight would differ, and with
them all keys of ledgers, so a fixed date stands in its place.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Message

TEMPLATES = {
    # AutoCode's ds=1
    "deepseek": "User:{question}\n\nAssistant:",
    # AutoCode's ds=0
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response:",
}

DATE = datetime(2024, 7, 26)  # what Llama 3.2's template writes where it cannot tell the date


def with_variables(name: str, variables: dict[str, Any]) -> str:
    """Return a template's name with variables."""
    return f"{name} {json.dumps(variables, sort_keys=True)}" if variables else name


def split_template(template: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a template and its variables."""
    name, _, variables = template.partition(" ")
    return name, json.loads(variables) if variables else {}


def chat_variables(template: str = "chat") -> dict[str, Any]:
    """Return what a tokenizer's own template is rendered with: the fixed date, and the template's variables."""
    fixed = {"date_string": DATE.strftime("%d %b %Y"), "strftime_now": DATE.strftime}
    return fixed | split_template(template)[1]


def as_messages(request: str | list[Message]) -> list[Message]:
    """Return a request as a conversation: a text is its only message."""
    return [{"role": "user", "content": request}] if isinstance(request, str) else request


def render(template: str, request: str | list[Message], tokenizer=None) -> str:
    """Return the prompt text of a request, with the assistant's turn opened."""
    return render_messages(template, as_messages(request), tokenizer)


def render_messages(
    template: str, messages: Sequence[Message], tokenizer=None, add_generation_prompt: bool = True
) -> str:
    """Return a conversation as text, under a named template or, for `chat`, under the tokenizer's own.

    A named template is repeated for each question, with EOS after each answer. Raise ValueError, or a
    jinja2.TemplateError, if the template has no place for these messages.
    """
    name, _ = split_template(template)

    if name == "chat":
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise BadInput(
                f"template chat: the tokenizer has no chat template; use a named one: {', '.join(TEMPLATES)}"
            )
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **chat_variables(template)
        )

    text = ""
    for number, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number + 1} is by {message['role']!r}; user and assistant must take turns")

        if message["role"] == "user":
            text += TEMPLATES[name].format(question=message["content"])
        else:
            text += message["content"] + (tokenizer.eos_token if tokenizer else "")

    return text
