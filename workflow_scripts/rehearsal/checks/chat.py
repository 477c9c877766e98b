"""Check how questions become tokens and where answers end: the template, the tokenizer, and the end tokens."""

from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError

from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.records import Message
from workflow_scripts.core.templates import TEMPLATES, render_messages, split_template
from workflow_scripts.rehearsal.findings import Finding
from workflow_scripts.rehearsal.rehearsed import Rehearsed

TALK: list[Message] = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
PROBE = "Two words,\n  an indented line and 12.5%."


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what is found in the tokenizer and the template."""
    if not rehearsed.model_folder:
        return

    tokenizer = rehearsed.tokenizer
    yield from lossless(tokenizer)
    yield from template_faults(tokenizer, rehearsed.recipe.full_template)
    yield from ends_of_answers(tokenizer, rehearsed.recipe.full_template, rehearsed.ends)


def lossless(tokenizer: Any) -> Iterator[Finding]:
    """Yield whether a text is changed by the tokenizer."""
    back = tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False))
    if back.strip() != PROBE:
        text = f"the tokenizer ({type(tokenizer).__name__}) does not give back what it was given: {PROBE!r} → {back!r}."
        yield Finding("fail", "model", text, "Prompts and programs would be changed: load it by another class.")


def template_faults(tokenizer: Any, template: str) -> Iterator[Finding]:
    """Yield what is wrong with the template of prompts."""
    own = getattr(tokenizer, "chat_template", None)
    name = split_template(template)[0]

    if name != "chat":
        if own:
            text = f"the tokenizer has a chat template, but prompts are written with {name!r}."
            yield Finding("waste", "template", text, "Use `template: chat`, unless the model was not trained with it.")
        return
    if not own:
        advice = f"Use one of {', '.join(TEMPLATES)}, or a model that was trained on conversations."
        yield Finding("fail", "template", "chat: the tokenizer has no chat template.", advice)
        return

    try:
        opened = render_messages(template, TALK[:1], tokenizer)
        unopened = render_messages(template, TALK[:1], tokenizer, add_generation_prompt=False)
        render_messages(template, TALK, tokenizer, add_generation_prompt=False)
    except (TemplateError, BadInput, Reject, ValueError) as error:
        yield Finding("fail", "template", f"chat: the template refuses a plain conversation: {error}.")
        return

    if opened == unopened:
        text = "chat: the template writes no generation prompt, so the model is not asked to answer."
        advice = "Let it write the beginning of the assistant's turn `if add_generation_prompt`."
        yield Finding("fail", "template", text, advice)


def ends_of_answers(tokenizer: Any, template: str, ends: list[int]) -> Iterator[Finding]:
    """Yield whether generation stops where training and the template end an answer."""
    names = ", ".join(repr(tokenizer.decode([end])) for end in ends if end is not None)

    if tokenizer.eos_token_id is None:
        yield Finding("fail", "model", "the tokenizer has no EOS token, so a model cannot learn where an answer ends.")
        return

    eos = tokenizer.eos_token
    has_turns = split_template(template)[0] == "chat" and getattr(tokenizer, "chat_template", None)
    closing = closing_token(tokenizer) if has_turns else None
    if tokenizer.eos_token_id not in ends and closing not in ends:
        text = f"generation ends at {names} only, but answers end with {eos!r}: it is never produced."
        advice = "Answers would run on to max_tokens: correct eos_token_id in generation_config.json."
        yield Finding("fail", "model", text, advice)
    elif closing is not None and closing not in ends:
        written = tokenizer.decode([closing])
        text = f"the template closes turns with {written!r}, but generation ends at {names} only."
        advice = (
            f"A model that follows the template writes {written!r} and goes on up to max_tokens, unless it then "
            f"writes {eos!r}. An instruct model, or a cold start, teaches that."
        )
        yield Finding("waste", "model", text, advice)


def closing_token(tokenizer: Any) -> int | None:
    """Return the special token with which the chat template closes an assistant's turn; None if it uses none."""
    try:
        text = render_messages("chat", TALK, tokenizer, add_generation_prompt=False)
    except (TemplateError, BadInput, Reject, ValueError):
        return None

    tail = tokenizer.encode(
        text[text.rindex(TALK[-1]["content"]) + len(TALK[-1]["content"]) :], add_special_tokens=False
    )
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    return next((token for token in tail if token in special), None)
