r"""Find the final answers that a text states. Each rule is a function of its own; `final_answer` has their order.

1. `boxed`: what stands in \boxed{…}. Boxes that only commas, "and" or "or" separate are one list.
2. `marked`: what follows "####" on the last line, as in GSM8K.
3. `claimed`: what follows "the answer is" or "the result is".
4. The output of the last program, if the answer has programs.
5. `last_number`.

The first rule that finds something decides, and its last find counts. If an answer has programs, the rules read its
conclusion, which is the text after the last program and its output.
"""

import re
from collections.abc import Sequence

LONGEST = 1000  # characters of a final answer that is compared; a longer one can only be equal as text

NUMBER = r"-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: ?/ ?\d+)?"
PRICE = rf"\\?[$€£]?{NUMBER}(?:\\?%)?"
LIST = rf"{PRICE}(?:(?:,? and |, ?){PRICE})+(?=\.?\s*\Z|\.\s|\n)"
# Words that may stand between "is" and the answer.
HEDGES = r"(?:(?:equal to|given by|simply|just|therefore|thus|approximately|about|around|roughly|exactly)[ \t]+){0,3}"
# What begins with a number and is more than a number: 5x, 2\sqrt{3}, 1 million.
MORE = r"(?![\w\\^+*{/(!]| *[a-z]+illion| *thousand)"
CLAIM = re.compile(
    rf"(?:answer|result)(?:[ \t]{{1,3}}(?:is|equals)\b:?|:)\s{{0,3}}{HEDGES}[*]{{0,3}}("
    r"\$\$?[^$\n]{1,200}\$\$?|\\\([^\n]{1,200}?\\\)|\\\[[^\n]{1,200}?\\\]"
    rf"|{LIST}|{PRICE}{MORE}"
    r"|\(?[A-J]\)(?!\w)|[^\n;]{1,200}?(?=\.\s|\.?\Z|[;\n]|,? (?:because|since|so|which|as)\b))",
    re.IGNORECASE,
)
MARK = re.compile(rf"####[ \t]{{0,3}}({PRICE}|[^\n#]{{1,200}})\s*\Z")
BETWEEN_BOXES = re.compile(r"[\s$]{0,6}(?:,\s?and|,\s?or|,|and|or)[\s$]{0,6}")


def boxed(text: str) -> list[str]:
    r"""Return the contents of each outermost \boxed{…} that is closed, in order. Time and memory are linear."""
    spans = []
    opened: list[int | None] = []

    for match in re.finditer(r"\\f?boxed\s{0,3}\{|\\[{}]|[{}]", text):
        token = match[0]
        if token in ("\\{", "\\}"):
            continue
        if token != "}":
            opened.append(match.end() if len(token) > 1 else None)
        elif opened and (start := opened.pop()) is not None:
            while spans and spans[-1][0] > start:  # the boxes within this one
                spans.pop()
            spans.append((start, match.start()))

    contents: list[str] = []
    previous_end = -1
    for start, end in spans:
        content = text[start:end].strip()
        before = text.rfind("\\", 0, start)
        if contents and BETWEEN_BOXES.fullmatch(text, previous_end + 1, min(before, previous_end + 21)):
            contents[-1] = f"{contents[-1]}, {content}"
        else:
            contents.append(content)
        previous_end = end

    return [content for content in contents if content]


def marked(text: str) -> list[str]:
    """Return what follows "####" on the last line."""
    return [answer.strip() for answer in MARK.findall(text)]


def claimed(text: str) -> list[str]:
    """Return what follows each "the answer is" and "the result is": a formula, a number, a letter or words."""
    answers = [claim.strip().strip("*").strip() for claim in CLAIM.findall(text)]
    return [answer for answer in answers if answer]


def last_number(text: str) -> list[str]:
    """Return the last number of a text."""
    return re.findall(NUMBER, text)[-1:]


STATED = (boxed, marked, claimed)


def stated(text: str) -> list[str]:
    """Return all answers that a text states by the first rule that finds one, in order; the last number is a rule."""
    for rule in (*STATED, last_number):
        if answers := rule(text):
            return answers
    return []


def final_answer(conclusion: str, outputs: Sequence[str] | None = None) -> str | None:
    """Return the final answer of a conclusion, or None if it has none.

    `outputs` are the last lines that the answer's programs printed; None if it has no programs.
    """
    for rule in STATED:
        if answers := rule(conclusion):
            return answers[-1]

    if outputs:
        return outputs[-1]
    return next(iter(last_number(conclusion)), None)
