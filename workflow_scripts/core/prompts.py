"""From a question to the exact text that a policy is asked with."""

from workflow_scripts.core.records import BadInput

TEMPLATES = {
    # AutoCode's ds=1
    "deepseek": "User:{question}\n\nAssistant:",
    # AutoCode's ds=0
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response:",
}


def as_messages(asked: str | list[dict]) -> list[dict]:
    """What is asked as a conversation: a text is its only message."""
    return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked


def check_count(split: str, level: str, count: int, available: int, what: str) -> None:
    """That a task can make up so many different prompts (`what` they are) of a level; else BadInput."""
    if count > available:
        raise BadInput(f"prompts.{split}.count.{level}: {count} {what} asked, there are {available}")


def render(template: str, asked: str | list[dict], tokenizer=None) -> str:
    """The full prompt: a named template, or the tokenizer's own for `chat`."""
    return render_messages(template, as_messages(asked), tokenizer)


def render_messages(template: str, messages: list[dict], tokenizer=None, ask: bool = True) -> str:
    """A conversation as text; `ask` opens the assistant's turn. A named template is repeated, with EOS after each
    answer. ValueError, or a jinja2.TemplateError, if the template has no place for such messages."""
    if template == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise BadInput(f"template chat: the tokenizer has no chat template; named ones are {', '.join(TEMPLATES)}")
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    text = ""
    for number, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number + 1} is by {message['role']!r}; user and assistant must take turns")
        if message["role"] == "user":
            text += TEMPLATES[template].format(question=message["content"])
        else:
            text += message["content"] + tokenizer.eos_token
    return text
