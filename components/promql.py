"""PromQL queries of business metrics. Prometheus rejects a whole rule file for one invalid query, so each is parsed here first."""

from itertools import accumulate

from promql_parser import Expr, MatrixSelector, ParenExpr, StringLiteral, SubqueryExpr, VectorSelector, parse

_LABEL = "tiers_here"
_LONGEST, _DEEPEST = 2000, 20
"""Limits of a query in characters, and in nested brackets: the parser's time grows with the square of each."""


def problem(query: str, here: str) -> str:
    """Return the reason why Prometheus can't evaluate a query as one number, or an empty text.

    Args:
        query: the PromQL query.
        here: a placeholder for labels in its selectors. Elsewhere, as in a string or a comment, it is refused, because the
            text is replaced there too and has no effect.
    """
    if len(query) > _LONGEST or _depth(query) > _DEEPEST:
        return f"it has more than {_LONGEST} characters, or more than {_DEEPEST} brackets within each other"
    try:
        parsed = parse(query.replace(here, f'{_LABEL}="x"'))
    except ValueError as error:
        return f"it is not PromQL: {str(error).partition(chr(10))[0]}"
    if isinstance(_unwrapped(parsed), MatrixSelector | SubqueryExpr | StringLiteral):
        return "its result is a range or a text, and a figure is one number at a time"
    selectors = _selectors(parsed)
    if any(selector.matchers.or_matchers for selector in selectors):
        return "it has `or` between labels, which Prometheus doesn't know"
    labels = [matcher.name for selector in selectors for matcher in selector.matchers.matchers]
    if labels.count(_LABEL) != query.count(here):
        return f"it has {here} in a text or a comment, where there are no labels"
    return ""


def _depth(query: str) -> int:
    """Return the greatest number of nested round brackets, including those in strings."""
    return max(accumulate((char == "(") - (char == ")") for char in query), default=0)


def _unwrapped(expression: Expr) -> Expr:
    while isinstance(expression, ParenExpr):
        expression = expression.expr
    return expression


def _selectors(expression: Expr) -> list[VectorSelector]:
    """Return all vector selectors of a query, including those of ranges. The parser's own `walk` takes cubic time."""
    selectors: list[VectorSelector] = []
    parts: list[object] = [expression]
    while parts:
        part = parts.pop()
        if isinstance(part, VectorSelector):
            selectors.append(part)
        elif isinstance(part, Expr):
            parts += [getattr(part, name, None) for name in ("expr", "lhs", "rhs", "param", "vector_selector")]
            parts += getattr(part, "args", ())
    return selectors
