r"""Write final answers in one notation, before they are compared: LaTeX spacing, units, currency, number formats.

Nothing here evaluates anything, and each step takes time linear in the length of the text.
"""

import re
from typing import NamedTuple

from workflow_scripts.tasks.math.units import CLASSES, NUMBER_WORDS

CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
     "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "°": r"^\circ", "\u00a0": " ", "\u2009": " ",
     "²": "^2", "³": "^3"}
)  # fmt: skip
REPLACED = (
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])", ""),
    (r"\\(?:[!,;:> ]|quad\b|qquad\b)|~", " "),
    (r"(?<=\d)\{,\}(?=\d{3})", ","),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mbox|operatorname|bf|rm)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\varnothing", r"\\emptyset"),
    (r"\\leq(?![a-z])", r"\\le"),
    (r"\\geq(?![a-z])", r"\\ge"),
    (r"\\neq(?![a-z])", r"\\ne"),
    (r"\\(lbrace|rbrace)(?![a-z])", lambda match: r"\{" if match[1] == "lbrace" else r"\}"),
    (r"\^\s*\{?\s*\\circ\s*\}?", "°"),
    (r"(?<=[\w}°)%])\s*,?\s+(?:and|or)\s+", ", "),
)  # fmt: skip
PLAIN_MATH = (  # as people and programs write formulas without LaTeX
    (r"\*\*", "^"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![\\A-Za-z])(sin|cos|tan|log|ln|exp|pi|infty)(?![A-Za-z])", r"\\\1 "),
    (r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
    (r"\*", r"\\cdot "),
    (r"\^\(([^()]*)\)", r"^{\1}"),
    (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\{[^{}]*\})\s*(\d)(?!\d)", r"\1{\2}"),
    (r"(?<![\w.^}])(\d+)\s*/\s*(\d+)(?![\w.])", r"\\frac{\1}{\2}"),
    (r"\{?(?<!\w)(\w+)\s*\\choose\s*(\w+)\}?", r"\\binom{\1}{\2}"),  # from a word's start, which takes linear time
)  # fmt: skip
LONG_SPACE = re.compile(r"(\s{8})\s+")  # on which patterns that begin with \s* would take quadratic time
GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")  # 1,234,567.8
SPACED = re.compile(r"-?\d{1,3}(?: \d{3})+")  # 10 000
NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?")
SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})")
MIXED = re.compile(r"(-?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}|(-?)(\d+)\s+(\d+)\s*/\s*(\d+)")
UNIT = re.compile(r"(?P<value>.*[\d})])(?P<space>\s*)(?P<unit>[A-Za-z][A-Za-z./ ]*?)(?P<power>\^\{?[23]\}?)?\.?")
WORD = re.compile(r"[A-Za-z][A-Za-z' .-]*")
ASSIGNED = re.compile(r"(.*[^<>=!\\\s])\s*=\s*([A-Za-z])")  # 5 = x


class Notation(NamedTuple):
    """A final answer in one notation."""

    text: str
    unit: str | None  # its class (see units.py); None if it has none
    is_percent: bool


def notation(answer: str) -> Notation:
    """Return a final answer in one notation."""
    text = LONG_SPACE.sub(r"\1", unwrapped(answer.translate(CHARACTERS)))
    for pattern, replacement in REPLACED:
        text = LONG_SPACE.sub(r"\1", re.sub(pattern, replacement, text))
    text = unwrapped(text)

    text, currency = without_currency(text)
    text, is_percent = without_percent(text)
    text, unit = without_unit(text)
    text = scaled(one_number_format(text))
    if ASSIGNED.fullmatch(text) and text.count("=") == 1:
        text = ASSIGNED.sub(r"\2=\1", text)
    return Notation(" ".join(text.split()), unit or currency, is_percent)


def unwrapped(text: str) -> str:
    r"""Remove what stands around an answer: $…$, \(…\), \boxed{…}, **…**, and a full stop."""
    for _ in range(5):
        before = text
        text = text.strip().strip("$").strip()
        text = text.removeprefix("**").removesuffix("**")
        for left, right in (("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"), ("\\fbox{", "}"), ("{", "}")):
            if text.startswith(left) and text.endswith(right) and is_closed(text[len(left) : -len(right)]):
                text = text[len(left) : -len(right)]
        text = text.strip()
        if text.endswith(".") and not text.endswith(("\\.", "..")):
            text = text[:-1]
        if text == before:
            break
    return text.strip()


def is_closed(text: str) -> bool:
    """Return whether each brace of a text has its partner within it."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def without_currency(text: str) -> tuple[str, str | None]:
    """Return the text without a sign of currency before its number, and the class of the unit."""
    signs = {"$": "dollar", "€": "euro", "£": "pound sterling"}
    match = re.fullmatch(r"(-?)\s*\\?([$€£])\s*(.*)", text, re.DOTALL)
    return (match[1] + match[3], signs[match[2]]) if match else (text, None)


def without_percent(text: str) -> tuple[str, bool]:
    """Return the text without a percent sign at its end, and whether it had one."""
    shorter = re.sub(r"\s*(?:\\?%|\bper ?cent)\Z", "", text)
    return shorter, shorter != text


def without_unit(text: str) -> tuple[str, str | None]:
    """Return the text without a unit at its end, and the class of the unit. Only units of a list count.

    A single letter is a unit only after a space, because `5m` is a product.
    """
    if text.endswith("°") and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        return text[:-1].strip(), "degree"

    match = UNIT.fullmatch(text)
    if match is None:
        return text, None

    name = " ".join(match["unit"].split())
    power = (match["power"] or "").strip("^{}")
    for words in (name, name.lower()):
        for full in (f"{words}^{power}",) if power else (words, f"sq {words}")[:1]:
            is_letter = len(words) == 1 and not match["space"]
            if full in CLASSES and not is_letter:
                return match["value"].strip(), CLASSES[full]
    return text, None


def one_number_format(text: str) -> str:
    """Return the text with its numbers as LaTeX reads them: no thousands separators, no mixed numbers, no `1e3`."""
    if GROUPED.fullmatch(text):
        return text.replace(",", "")
    if SPACED.fullmatch(text):
        return text.replace(" ", "")

    for pattern, replacement in PLAIN_MATH:
        text = re.sub(pattern, replacement, text)
    if match := SCIENTIFIC.fullmatch(text):
        return rf"{match[1]} \times 10^{{{int(match[2])}}}"
    if match := MIXED.fullmatch(text):
        sign, whole, top, bottom = match.groups()[:4] if match[2] else match.groups()[4:]
        return rf"{sign}({whole}+\frac{{{top}}}{{{bottom}}})"
    return re.sub(r"(?<=\d)\s*°", r"\\cdot\\frac{\\pi}{180}", text)  # an angle within a formula


def scaled(text: str) -> str:
    """Return the text with a number word at its end as a factor: 3 million is 3 × 1000000."""
    match = re.fullmatch(r"(.*\d)\s*([A-Za-z]+)", text)
    if match is None or match[2].lower().removesuffix("s") not in NUMBER_WORDS:
        return text
    return rf"{match[1]}\cdot {NUMBER_WORDS[match[2].lower().removesuffix('s')]}"


def integer(text: str) -> str | None:
    """Return the digits of a text that is an integer, without leading zeros; 18.00 is one. None for anything else.

    The digits stay text, because integers of thousands of digits take long to convert.
    """
    match = NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]) or (match[3] or "").strip("0"):
        return None
    digits = match[2].lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def choice(text: str) -> str | None:
    """Return the letter of a multiple choice: B, (B), B. or "(B) 12 apples"; None for anything else."""
    match = re.fullmatch(r"\(?([A-Ja-j])(?:[).:]\s*.*|\s*)", text.strip(), re.DOTALL)
    return match[1].upper() if match else None
