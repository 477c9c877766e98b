"""Convert a conversation into token ids, with a mask of what the assistant wrote (its turns and their ends).

The text of a conversation is cut into pieces at the borders of the assistant's turns. Each piece is tokenised on its
own, as it is when the policy is asked, so no token straddles a border and the mask is exact.
"""

import re
from typing import Any

from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.records import Message, Piece
from workflow_scripts.core.templates import chat_variables, render_messages, split_template
from workflow_scripts.core.tokens import encode_pieces, encode_prompt

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def check_messages(value: Any, name: str) -> list[Message]:
    """Return `value` as a list of messages with role and content as text; raise Reject if it is something else."""
    if not isinstance(value, list) or not value:
        raise Reject(f"{name} should be a list of messages, found {value!r:.60}")

    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise Reject(f"{name}, message {number}: role and content should be text, found {message!r:.60}")

    return [{key: field for key, field in message.items() if field is not None} for message in value]  # type: ignore


def encode_answer(tokenizer, template: str, prompt: list[Message] | str, pieces: list[Piece]) -> dict[str, Any]:
    """Return {prompt_text, answer, prompt_tokens, tokens, mask} of one answer, ended with EOS.

    A prompt that is text is taken as it is. Messages are rendered and the assistant's turn is opened. If the last
    message is by the assistant, it is the beginning of the answer and belongs to the prompt, as in CodeRL's
    `prompt_pretokenized`.
    """
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt, pieces)

    is_started = prompt[-1]["role"] == "assistant"
    request = prompt[:-1] if is_started else prompt
    beginning = prompt[-1]["content"] if is_started else ""

    if not request:
        raise Reject("there is no question before the first answer")

    return _encode(tokenizer, _render(template, request, tokenizer) + beginning, pieces)


def encode_turns(tokenizer, template: str, messages: list[Message], start: int) -> dict[str, Any]:
    """Return the same for a conversation whose answer begins at message `start` (from 0) and may have several turns.

    The assistant's turns from there on have mask 1, each with the token that closes it. The text between them has
    mask 0. The last turn ends with EOS, whatever token the template closes it with.
    """
    if not start:
        raise Reject("there is no question before the first answer")
    if messages[-1]["role"] != "assistant":
        raise Reject(f"the last message is by {messages[-1]['role']!r}, not by the assistant")

    if messages[start - 1]["role"] == "assistant":
        if start != len(messages) - 1:
            raise Reject("the prompt ends with the beginning of an answer, so exactly one message must follow")
        return encode_answer(tokenizer, template, messages[:start], [(messages[start]["content"], True)])

    prompt_text = _render(template, messages[:start], tokenizer)
    whole = _render(template, messages, tokenizer, add_generation_prompt=False)
    pieces: list[Piece] = []
    place = len(prompt_text)

    for begin, end in _assistant_spans(tokenizer, template, messages, start, prompt_text, whole):
        end = _closed(tokenizer, whole, begin, end)
        pieces += [(whole[place:begin], False), (whole[begin:end], True)]
        place = end

    pieces[-1] = (pieces[-1][0].removesuffix(tokenizer.eos_token), True)  # EOS is added as a token
    return _encode(tokenizer, prompt_text, pieces)


def continuation(tokenizer, template: str, text: str) -> str:
    """Return what stands between the token that ends an assistant's turn and its next turn: the user's text.

    Raise BadInput if the template does not show where that begins.
    """
    turns: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "."}]
    before = _render(template, turns, tokenizer, add_generation_prompt=False)
    whole = _render(template, [*turns, {"role": "user", "content": text}], tokenizer)
    end = _closed(tokenizer, before, 0, len(before))

    if not whole.startswith(before[:end]):
        raise BadInput(_unclear(template, 1))

    return whole[end:]


def _encode(tokenizer, prompt_text: str, pieces: list[Piece]) -> dict[str, Any]:
    tokens, mask = encode_pieces(tokenizer, pieces)
    return {
        "prompt_text": prompt_text,
        "answer": "".join(text for text, _ in pieces),
        "prompt_tokens": encode_prompt(tokenizer, prompt_text),
        "tokens": tokens,
        "mask": mask,
    }


def _render(template: str, messages: list[Message], tokenizer, add_generation_prompt: bool = True) -> str:
    """Return messages as text. Messages that the template has no place for are the record's fault."""
    from jinja2 import TemplateError

    try:
        return render_messages(template, messages, tokenizer, add_generation_prompt)
    except (TemplateError, ValueError) as error:
        raise Reject(f"the template {template!r} refuses the messages: {error}") from None


def _assistant_spans(
    tokenizer, template: str, messages: list[Message], start: int, prompt_text: str, whole: str
) -> list[tuple[int, int]]:
    """Return where the assistant's turns from `start` on stand in the whole text.

    A template may mark them itself. Otherwise each turn lies between the prompt before it and the conversation up to
    it, which both must be prefixes of the whole text; else BadInput is raised.
    """
    if not whole.startswith(prompt_text):
        raise BadInput(_unclear(template, start))

    if split_template(template)[0] == "chat" and GENERATION.search(tokenizer.get_chat_template()):
        first = len(prompt_text)
        spans = [(max(begin, first), end) for begin, end in _marked_spans(tokenizer, template, messages) if end > first]
        if not spans:
            raise BadInput("the {% generation %} block of the chat template marks nothing of the answer")
        return spans

    spans = []
    for i in range(start, len(messages)):
        if messages[i]["role"] == "assistant":
            before = _render(template, messages[:i], tokenizer)
            after = _render(template, messages[: i + 1], tokenizer, add_generation_prompt=False)
            if not (whole.startswith(after) and after.startswith(before)):
                raise BadInput(_unclear(template, i))
            spans.append((len(before), len(after)))

    return spans


def _marked_spans(tokenizer, name: str, messages: list[Message]) -> list[tuple[int, int]]:
    """Return the template's {% generation %} blocks, as places in the text."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template = tokenizer.get_chat_template()
    variables = tokenizer.special_tokens_map | chat_variables(name)
    conversations: Any = [messages]
    rendered: Any = render_jinja_template(
        conversations, chat_template=template, return_assistant_tokens_mask=True, **variables
    )
    return rendered[1][0]


def _unclear(template: str, i: int) -> str:
    return (
        f"the template {template!r} writes the text up to message {i + 1} differently if more messages follow, so the "
        "assistant's part cannot be found; use a template that marks it with {% generation %}, or another template"
    )


def _closed(tokenizer, text: str, begin: int, end: int) -> int:
    """Return where the assistant's part of a turn ends: after the token that closes it.

    White space behind that token belongs to the template, as does white space at the end of a turn that no token
    closes.
    """
    if text.startswith(tokenizer.eos_token, end):  # a {% generation %} block that leaves EOS out
        return end + len(tokenizer.eos_token)

    return begin + len(text[begin:end].rstrip())
