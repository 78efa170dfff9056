"""Queries of figures, read by a parser of PromQL: one that Prometheus can't read would make it refuse all of its rules."""

from itertools import accumulate

from promql_parser import Expr, MatrixSelector, ParenExpr, StringLiteral, SubqueryExpr, VectorSelector, parse

_LABEL = "tiers_here"
_LONGEST, _DEEPEST = 2000, 20
"""Characters of a query and brackets in it that are open at a time: the parser's time grows with the square of these."""


def problem(query: str, here: str) -> str:
    """Return the reason why Prometheus can't take a query, or an empty text. `here` stands for labels in its selectors.

    The text `here` is replaced wherever it is found; in a string or a comment it would be replaced, too, and mean nothing.
    """
    if len(query) > _LONGEST or _depth(query) > _DEEPEST:
        return f"it has more than {_LONGEST} characters, or more than {_DEEPEST} brackets within each other"
    try:
        found = parse(query.replace(here, f'{_LABEL}="x"'))
    except ValueError as error:
        return f"it is not PromQL: {str(error).partition(chr(10))[0]}"
    if isinstance(_unwrapped(found), MatrixSelector | SubqueryExpr | StringLiteral):
        return "its result is a range or a text, and a figure is one number at a time"
    selectors = _selectors(found)
    if any(each.matchers.or_matchers for each in selectors):
        return "it has `or` between labels, which Prometheus doesn't know"
    labels = [matcher.name for each in selectors for matcher in each.matchers.matchers]
    if labels.count(_LABEL) != query.count(here):
        return f"it has {here} in a text or a comment, where there are no labels"
    return ""


def _depth(query: str) -> int:
    """Return how many round brackets are open at most, those in texts included."""
    return max(accumulate((char == "(") - (char == ")") for char in query), default=0)


def _unwrapped(found: Expr) -> Expr:
    while isinstance(found, ParenExpr):
        found = found.expr
    return found


def _selectors(found: Expr) -> list[VectorSelector]:
    """Return every selector of a query, those of ranges too. The parser's own `walk` takes cubic time."""
    selectors: list[VectorSelector] = []
    parts: list[object] = [found]
    while parts:
        part = parts.pop()
        if isinstance(part, VectorSelector):
            selectors.append(part)
        elif isinstance(part, Expr):
            parts += [getattr(part, name, None) for name in ("expr", "lhs", "rhs", "param", "vector_selector")]
            parts += getattr(part, "args", ())
    return selectors
