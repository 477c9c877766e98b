"""Final answers in text: where they are stated, and whether two of them are equal."""

import re
from fractions import Fraction

NUMBER = r"-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: ?/ ?\d+)?"
STATED = re.compile(
    rf"(?:answer|result)[ \t]{{1,3}}is:?\s{{0,3}}(?:equal to |approximately |about |exactly )?[*(]{{0,3}}"
    rf"(\$[^$\n]{{1,100}}\$|\\?\$?{NUMBER}(?![\w\\^+*{{])|[^\s,*]{{1,100}})",
    re.IGNORECASE,
)
MARKED = re.compile(rf"####[ \t]{{0,3}}(\\?\$?{NUMBER}%?)\s*\Z")  # the last line of GSM8K's solutions
TOLERANCE = 1e-3  # relative, for golds that are not integers
FUNCTIONS = {"sqrt", "pi", "sin", "cos", "tan", "log", "exp"}


def boxed(text: str) -> list[str]:
    """The contents of all \\boxed{…} in the order of their ends, braces balanced; one pass over the text."""
    found, opened = [], []
    for match in re.finditer(r"\\boxed\s{0,3}\{|[{}]", text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found.append(text[start : match.start()])
        else:
            opened.append(match.end() if len(match[0]) > 1 else None)
    return found


def stated(text: str) -> list[str]:
    """Every answer that the text claims, in order: boxed ones, else "#### …" at the end, else "the answer is …".

    If it claims none in one of these ways, the last number counts.
    """
    return boxed(text) or MARKED.findall(text) or STATED.findall(text) or re.findall(NUMBER, text)[-1:]


def clean(answer: str) -> str:
    """An answer without its dress: units, currency, thousands separators, LaTeX spacing."""
    text = answer.replace("\u2212", "-").strip().strip("$*").strip()
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^(-?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}$", _mixed, text)
    text = re.sub(r"\\frac\{([^{}]+)\}\{([^{}]+)\}", r"(\1)/(\2)", text)
    text = re.sub(r"(?<=[\d)])\s*\\(?:text|mathrm|mbox)\{[^}]*\}(?:\^\d)?", "", text)  # a unit
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^}]*)\}", r"\1", text)
    text = re.sub(r"\^\{?\\circ\}?|\\(?:left|right|!|,|;|\$|%)|[$%°]", "", text)
    text = re.sub(r"(?<=\d)(?:,|\{,\})(?=\d{3})", "", text)
    text = re.sub(r"^[A-Za-z]\w*\s*=\s*", "", text.strip())
    text = re.sub(rf"^({NUMBER})\s+[A-Za-z][A-Za-z ]*$", r"\1", text)  # 18 dollars
    return text.strip().rstrip(".").strip()


def _mixed(match: re.Match) -> str:
    """1\\frac{1}{2} is 3/2."""
    sign, whole, top, bottom = match.groups()
    return f"{sign}{int(whole) * int(bottom) + int(top)}/{bottom}"


def number(text: str) -> Fraction | None:
    """The value of "18", "-3.50", "3/4" or "(3)/(4)"; None for anything else."""
    match = re.fullmatch(r"\(?(-?\d*\.?\d+)\)?(?:\s*/\s*\(?(-?\d+)\)?)?", text)
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
    spaces = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # but "1 1" is not 11
    if spaces.sub("", answer) == spaces.sub("", gold):
        return True
    left, right = _pythonic(answer), _pythonic(gold)
    if run is None or not (_is_formula(left) and _is_formula(right)):
        return False
    return run(SYMBOLIC.format(left=left, right=right)) == {"output": "True\n", "error": None}


def _is_formula(text: str) -> bool:
    """Nothing but numbers, operators, one-letter variables and a few functions: no name that could be called."""
    names = re.findall(r"[A-Za-z_]+", text)
    return bool(re.fullmatch(r"[A-Za-z\d\s+\-*/().]{1,100}", text)) and all(
        len(name) == 1 or name in FUNCTIONS for name in names
    )


SYMBOLIC = """from sympy import simplify
from sympy.parsing.sympy_parser import parse_expr, standard_transformations, implicit_multiplication
steps = standard_transformations + (implicit_multiplication,)
print(simplify(parse_expr({left!r}, transformations=steps) - parse_expr({right!r}, transformations=steps)) == 0)
"""


def _pythonic(latex: str) -> str:
    text = re.sub(r"\\sqrt\{([^{}]+)\}", r"sqrt(\1)", latex)
    text = re.sub(r"\^\{([^{}]+)\}", r"^(\1)", text)
    return text.replace("\\pi", "pi").replace("\\cdot", "*").replace("\\times", "*").replace("^", "**")
