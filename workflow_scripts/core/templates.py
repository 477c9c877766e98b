"""From a question to the exact text that a policy receives."""

from collections.abc import Sequence

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Message

TEMPLATES = {
    # AutoCode's ds=1
    "deepseek": "User:{question}\n\nAssistant:",
    # AutoCode's ds=0
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response:",
}


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
    if template == "chat":
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise BadInput(
                f"template chat: the tokenizer has no chat template; use a named one: {', '.join(TEMPLATES)}"
            )
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)

    text = ""
    for number, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number + 1} is by {message['role']!r}; user and assistant must take turns")

        if message["role"] == "user":
            text += TEMPLATES[template].format(question=message["content"])
        else:
            text += message["content"] + (tokenizer.eos_token if tokenizer else "")

    return text
