r"""Compare an answer with its references by math-verify, within an isolated process (see core/workers.py).

Both sides are in the notation of `notation.py`. Decimals are read as exact fractions, so math-verify's rounding never
applies. A tolerance applies in two cases only:

- The reference is a decimal: the answer must round to it, that is, differ by less than half a unit of its last place.
- The answer has the 15 digits of a double: it must equal the reference to a relative 1e-12, as 109.00000000000001
  equals 109.
"""

import logging
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

from workflow_scripts.core.workers import Emit, Isolate

LIMITS = {"cpu_seconds": 5, "wall_seconds": 60, "memory_mb": 1024, "output_bytes": 100_000}
DECIMAL = re.compile(r"-?\d*\.\d+")
DOUBLE_DIGITS, DOUBLE_TOLERANCE = 15, Fraction(1, 10**12)
PLUS_MINUS = r"\pm"
LARGEST_EXPONENT = 10_000  # of a power that is evaluated
SAMPLES = (  # formulas that fill the caches of the parser
    *(r"\frac{\sqrt{3}}{2}+x^{2}", r"\{1,2\}", r"(-\infty,3]\cup[5,7)", r"x\le 5", r"\cos x", "f(x)=2x", "1<x<2"),
    *(r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\binom{5}{2}+3!", r"\log_2 8", r"\text{no}", r"50\%", r"|x|\pm 2"),
)


def warm_up() -> None:
    """Import math-verify and fill the caches of its parser."""
    import math_verify
    import math_verify.grader
    import math_verify.parser
    import sympy.sets.fancysets
    import sympy.simplify.trigsimp  # noqa: F401

    logging.disable(logging.CRITICAL)
    for sample in SAMPLES:
        same_value(sample, sample)
        same_value(f"{sample}+0", sample)
    math_verify.parser.parse_latex_cached.cache_clear()


def handle(request: dict[str, list[dict[str, Any]]], isolate: Isolate, emit: Emit) -> None:
    """Emit for each answer "right", "wrong", or the reason why it is undecided. The limits hold for all together."""
    isolate()
    for answer in request["answers"]:
        emit(verdict(answer, request["references"]))


def verdict(answer: dict[str, Any], references: list[dict[str, Any]]) -> str:
    """Return "right" if an answer equals one of the references, "wrong", or "undecided: " with the reason."""
    reason = None

    for reference in references:
        try:
            if is_equal(answer, reference):
                return "right"
        except (Exception, RecursionError, MemoryError) as fault:
            reason = f"undecided: {type(fault).__name__}: {fault!s:.100}"

    return reason or "wrong"


def is_equal(answer: dict[str, Any], reference: dict[str, Any]) -> bool:
    """Return whether an answer equals a reference. A percentage equals its number with and without the sign."""
    left, right = answer["text"], reference["text"]
    if same_value(left, right):
        return True
    if answer["is_percent"] and not reference["is_percent"]:
        return same_value(rf"\frac{{{left}}}{{100}}", right)
    if reference["is_percent"] and not answer["is_percent"]:
        return same_value(left, rf"\frac{{{right}}}{{100}}")
    return False


def same_value(answer: str, reference: str) -> bool:
    """Return whether two formulas are equal."""
    if parts := matching_parts(answer, reference):
        return all(same_value(left, right) for left, right in parts)

    answer_value, reference_value = parsed(answer), parsed(reference)
    if answer_value is None or reference_value is None:
        return False
    check_size(answer_value, reference_value)

    if (tolerance := tolerance_of(answer, reference)) is not None:
        number, expected = real_number(answer_value), real_number(reference_value)
        if number is not None and expected is not None:
            scale = 1 if has_decimals(reference) else abs(expected)
            return number == expected or abs(number - expected) < tolerance * scale

    import math_verify

    options = {"strict": True, "allow_set_relation_comp": True, "timeout_seconds": 0, "raise_on_error": True}
    return bool(math_verify.verify(reference_value, answer_value, **options))


def has_decimals(text: str) -> bool:
    """Return whether a text is a decimal number."""
    return DECIMAL.fullmatch(text) is not None


def tolerance_of(answer: str, reference: str) -> Fraction | None:
    """Return by how much the numbers may differ: absolutely for a decimal reference, else relatively for a double."""
    if has_decimals(reference):
        return Fraction(1, 2 * 10 ** len(reference.partition(".")[2]))
    if has_decimals(answer) and len(answer.strip("-").replace(".", "").lstrip("0")) >= DOUBLE_DIGITS:
        return DOUBLE_TOLERANCE
    return None


def parsed(text: str) -> Any:
    """Return a formula as sympy's expression, or None if it is none."""
    from math_verify import parse

    exact = re.sub(r"\d*\.\d+", as_fraction, text)
    if exact.count(PLUS_MINUS) == 1:
        exact = exact.replace(PLUS_MINUS, "+") + ", " + exact.replace(PLUS_MINUS, "-")
    expressions = parse(f"\\boxed{{{exact}}}", configuration(), fallback_mode="no_fallback", parsing_timeout=0)
    return expressions[0] if expressions else None


def as_fraction(decimal: re.Match) -> str:
    """Return a decimal as a fraction in LaTeX."""
    whole, _, places = decimal[0].partition(".")
    return rf"\frac{{{(whole + places).lstrip('0') or '0'}}}{{1{'0' * len(places)}}}"


@cache
def configuration() -> list[Any]:
    """Return how math-verify reads a formula. Units were removed before."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="last", equations=False
    )
    return [LatexExtractionConfig(normalization_config=normalization, boxed_match_priority=0)]


def real_number(expression: Any) -> Fraction | None:
    """Return the value of an expression to 30 digits, or None if it is no real number. x = 5 has the value 5."""
    import sympy

    if isinstance(expression, sympy.Eq) and expression.lhs.is_Symbol:
        expression = expression.rhs
    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    value: Any = expression.doit().evalf(30)
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    if not value.is_Float or not value.is_finite:
        return None
    return Fraction(str(value))


def check_size(*expressions: Any) -> None:
    """Raise OverflowError if an expression has a power that would take gigabytes."""
    import sympy

    for expression in expressions:
        for power in expression.atoms(sympy.Pow) if hasattr(expression, "atoms") else ():
            exponent = power.exp
            if exponent.is_number and not power.base.free_symbols and abs(exponent.evalf(5)) > LARGEST_EXPONENT:
                raise OverflowError("a power is too large to be evaluated")


def matching_parts(answer: str, reference: str) -> list[tuple[str, str]] | None:
    """Return the coordinates of two points, or the ends of two intervals, pairwise; None if they are no such things.

    math-verify takes (2,1) for an empty interval.
    """
    pieces = [coordinates(text) for text in (answer, reference)]
    if pieces[0] is None or pieces[1] is None:
        return None
    if pieces[0][0] != pieces[1][0] or len(pieces[0][1]) != len(pieces[1][1]):
        return None
    return list(zip(pieces[0][1], pieces[1][1]))


def coordinates(text: str) -> tuple[str, list[str]] | None:
    """Return the brackets of a point or interval and what is within, between commas at its top level."""
    text = text.strip()
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    parts = list(top_level_parts(text[1:-1]))
    return (text[0] + text[-1], parts) if len(parts) > 1 and all(parts) else None


def top_level_parts(text: str) -> Iterator[str]:
    """Yield what stands between the commas of a text that are within no brackets."""
    depth = 0
    start = 0

    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            yield ""  # the brackets around the text are not one pair
            return
        if character == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1

    yield text[start:].strip()
