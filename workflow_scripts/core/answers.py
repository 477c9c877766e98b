"""Final answers in text: where they are stated, and whether two of them are equal."""

import re
from fractions import Fraction

NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?|-?\.\d+"
STATED = re.compile(rf"(?:answer|result)\s+is:?\s*(?:equal to\s*)?\$?\\?\(?\s*({NUMBER}|[^\s.,]+)", re.IGNORECASE)
TOLERANCE = 1e-3  # relative, for golds that are not integers


def boxed(text: str) -> list[str]:
    """The contents of all \\boxed{…} in order, braces balanced."""
    found = []
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[match.end() : end])
                break
    return found


def stated(text: str) -> list[str]:
    """Every answer that the text claims, in order: boxed ones, else "the answer is …", else the last number."""
    return boxed(text) or STATED.findall(text) or re.findall(NUMBER, text)[-1:]


def clean(answer: str) -> str:
    """An answer without its dress: units, currency, thousands separators, LaTeX spacing."""
    text = answer.strip().strip("$").strip()
    text = re.sub(r"\\(?:text|mathrm|mbox)\{[^}]*\}", "", text)
    text = re.sub(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}", r"(\1)/(\2)", text)
    text = re.sub(r"\\(?:left|right|!|,|;|\$|%)|[$%°]|\^\\circ", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"^[A-Za-z]\w*\s*=\s*", "", text.strip())
    return text.strip().rstrip(".").strip()


def number(text: str) -> Fraction | None:
    """The value of "18", "-3.50", "3/4" or "(3)/(4)"; None for anything else."""
    match = re.fullmatch(r"\(?(-?\d*\.?\d+)\)?(?:\s*/\s*\(?(-?\d+)\)?)?", text.replace(" ", ""))
    if not match or len(text) > 100:
        return None
    bottom = int(match[2] or 1)
    return Fraction(match[1]) / bottom if bottom else None


def equal(answer: str, gold: str, run=None) -> bool:
    """Equal as text, as numbers (integers exactly, others to 0.1 %), or symbolically in the sandbox `run`."""
    answer, gold = clean(answer), clean(gold)
    if not answer or not gold:
        return False
    left, right = number(answer), number(gold)
    if left is not None and right is not None:
        if right.denominator == 1:
            return left == right
        return abs(left - right) <= TOLERANCE * abs(right)
    if re.sub(r"\s+", "", answer) == re.sub(r"\s+", "", gold):
        return True
    symbolic = re.compile(r"[\w\s+\-*/^().\\{}]{1,100}")
    if run is None or not (symbolic.fullmatch(answer) and symbolic.fullmatch(gold)):
        return False
    return run(SYMBOLIC.format(left=_pythonic(answer), right=_pythonic(gold)))["output"].strip() == "True"


SYMBOLIC = """from sympy import simplify
from sympy.parsing.sympy_parser import parse_expr, standard_transformations, implicit_multiplication
steps = standard_transformations + (implicit_multiplication,)
print(simplify(parse_expr({left!r}, transformations=steps) - parse_expr({right!r}, transformations=steps)) == 0)
"""


def _pythonic(latex: str) -> str:
    text = re.sub(r"\\sqrt\{([^{}]+)\}", r"sqrt(\1)", latex)
    return text.replace("\\pi", "pi").replace("\\cdot", "*").replace("\\times", "*").replace("^", "**")
