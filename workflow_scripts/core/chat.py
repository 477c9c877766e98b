"""From a conversation to token ids, with a mask of what the assistant says: its turns and their ends, nothing else.

A conversation is a list of messages {role, content}. Its text is cut into pieces at the borders of the assistant's
turns, and each piece is tokenised on its own, as it would be when the policy is asked: no token straddles a border, so
the mask is exact.
"""

import re

from workflow_scripts.core.prompts import render_messages
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.tokens import encode_pieces, encode_prompt

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Reject(Exception):
    """A record that cannot be used, for a reason that is its own: it is left out and listed."""


def check_messages(value, what: str) -> list[dict]:
    """`value` as a list of messages with role and content as text, empty keys left out; else Reject."""
    if not isinstance(value, list) or not value:
        raise Reject(f"{what} should be a list of messages, found {value!r:.60}")
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise Reject(f"{what}, message {number}: role and content should be text, found {message!r:.60}")
    return [{key: field for key, field in message.items() if field is not None} for message in value]


def encode_answer(tokenizer, template: str, prompt: list[dict] | str, pieces: list[tuple[str, bool]]) -> dict:
    """{req, output, prompt_tokens, tokens, mask} of one answer, taken as it is and ended with EOS.

    The pieces of the answer are (text, by the policy?). A prompt given as text is taken as it is. Messages are rendered
    and the assistant's turn opened; a last message by the assistant is the beginning of its answer, and belongs to the
    prompt (CodeRL's `prompt_pretokenized`).
    """
    if isinstance(prompt, str):
        return _row(tokenizer, prompt, pieces)
    started = prompt[-1]["role"] == "assistant"
    asked, prefix = (prompt[:-1], prompt[-1]["content"]) if started else (prompt, "")
    if not asked:
        raise Reject("nothing is asked before the first answer")
    return _row(tokenizer, _render(template, asked, tokenizer) + prefix, pieces)


def encode_turns(tokenizer, template: str, messages: list[dict], start: int) -> dict:
    """The same of a conversation whose answer begins at message `start` (from 0) and may be several turns.

    The assistant's turns from there on have mask 1 with the token that closes them, what stands between them 0; the
    last one ends with EOS, whatever the template closes it with.
    """
    if not start:
        raise Reject("nothing is asked before the first answer")
    if messages[-1]["role"] != "assistant":
        raise Reject(f"the last message is by {messages[-1]['role']!r}, not by the assistant")
    if messages[start - 1]["role"] == "assistant":
        if start != len(messages) - 1:
            raise Reject("the prompt ends with the beginning of an answer, so one message must follow")
        return encode_answer(tokenizer, template, messages[:start], [(messages[start]["content"], True)])
    req, whole = _render(template, messages[:start], tokenizer), _render(template, messages, tokenizer, ask=False)
    pieces, place = [], len(req)
    for begin, end in _spans(tokenizer, template, messages, start, req, whole):
        end = _closed(tokenizer, whole, begin, end)
        pieces += [(whole[place:begin], False), (whole[begin:end], True)]
        place = end
    pieces[-1] = (pieces[-1][0].removesuffix(tokenizer.eos_token), True)  # it is added as a token
    return _row(tokenizer, req, pieces)


def _row(tokenizer, req: str, pieces: list[tuple[str, bool]]) -> dict:
    tokens, mask = encode_pieces(tokenizer, pieces)
    prompt = encode_prompt(tokenizer, req)
    output = "".join(text for text, _ in pieces)
    return {"req": req, "output": output, "prompt_tokens": prompt, "tokens": tokens, "mask": mask}


def _render(template: str, messages: list[dict], tokenizer, ask: bool = True) -> str:
    """Messages as text; what a template has no place for is the record's fault."""
    from jinja2 import TemplateError

    try:
        return render_messages(template, messages, tokenizer, ask)
    except (TemplateError, ValueError) as error:
        raise Reject(f"the template {template!r} refuses the messages: {error}") from None


def _spans(tokenizer, template: str, messages: list[dict], start: int, req: str, whole: str) -> list[tuple[int, int]]:
    """Where the assistant's turns from `start` on stand in the whole text: as the template marks them, else each
    between the prompt before it and the conversation up to it, which must be prefixes of the whole; else BadInput."""
    if not whole.startswith(req):
        raise BadInput(_unclear(template, start))
    if template == "chat" and GENERATION.search(tokenizer.get_chat_template()):
        spans = [(max(begin, len(req)), end) for begin, end in _marked(tokenizer, messages) if end > len(req)]
        if not spans:
            raise BadInput("the {% generation %} block of the chat template marks nothing of the answer")
        return spans
    spans = []
    for i in range(start, len(messages)):
        if messages[i]["role"] == "assistant":
            before = _render(template, messages[:i], tokenizer)
            after = _render(template, messages[: i + 1], tokenizer, ask=False)
            if not (whole.startswith(after) and after.startswith(before)):
                raise BadInput(_unclear(template, i))
            spans.append((len(before), len(after)))
    return spans


def _marked(tokenizer, messages: list[dict]) -> list[tuple[int, int]]:
    """The template's {% generation %} blocks, as places in the text."""
    from transformers.utils.chat_template_utils import render_jinja_template

    chat, special = tokenizer.get_chat_template(), tokenizer.special_tokens_map
    return render_jinja_template([messages], chat_template=chat, return_assistant_tokens_mask=True, **special)[1][0]


def _unclear(template: str, i: int) -> str:
    return (
        f"the template {template!r} writes the text up to message {i + 1} differently when more follows, so it "
        "cannot be told what the assistant says: use a template that marks it with {% generation %}, or another one"
    )


def continuation(tokenizer, template: str, said: str) -> str:
    """What stands between the token that ends an assistant's turn and its next turn: what the user says, as the
    template writes it. BadInput if the template cannot tell."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "."}]
    before = _render(template, turns, tokenizer, ask=False)
    whole = _render(template, [*turns, {"role": "user", "content": said}], tokenizer)
    end = _closed(tokenizer, before, 0, len(before))
    if not whole.startswith(before[:end]):
        raise BadInput(_unclear(template, 1))
    return whole[end:]


def _closed(tokenizer, text: str, begin: int, end: int) -> int:
    """Where the assistant's part of a turn ends: after the token that closes it. White space behind that is the
    template's, as it is at the end of a turn that no token closes."""
    if text.startswith(tokenizer.eos_token, end):  # a {% generation %} block that leaves it out
        return end + len(tokenizer.eos_token)
    return begin + len(text[begin:end].rstrip())
