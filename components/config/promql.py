"""Check PromQL queries before an update, because Prometheus rejects a whole rule file if one of its queries is invalid."""

from itertools import accumulate

from promql_parser import Expr, MatrixSelector, ParenExpr, StringLiteral, SubqueryExpr, VectorSelector, parse

_LABEL = "tiers_here"
_LONGEST, _DEEPEST = 2000, 20
"""Maximum length of a query in characters, and maximum nesting of brackets. Both limits are needed, because the time
to parse a query grows with the square of its length, and with the square of its nesting."""


def problem(query: str, here: str) -> str:
    """Return the reason why a query is invalid for a business metric, or an empty text for a valid query.

    Args:
        query: the PromQL query. Its result must be an instant vector or a scalar, not a range or a text.
        here: placeholder for labels in the query's selectors. The placeholder is refused in strings and comments, where it would
            have no effect.
    """
    if len(query) > _LONGEST or _depth(query) > _DEEPEST:
        return f"it has more than {_LONGEST} characters, or more than {_DEEPEST} brackets within each other"
    try:
        parsed = parse(query.replace(here, f'{_LABEL}="x"'))
    except ValueError as error:
        return f"it is not PromQL: {str(error).partition(chr(10))[0]}"
    if isinstance(_unwrapped(parsed), MatrixSelector | SubqueryExpr | StringLiteral):
        return "the query returns a range or a text, but a business metric is one number at a time"
    selectors = _selectors(parsed)
    if any(selector.matchers.or_matchers for selector in selectors):
        return "it has `or` between labels, which Prometheus does not support"
    labels = [matcher.name for selector in selectors for matcher in selector.matchers.matchers]
    if labels.count(_LABEL) != query.count(here):
        return f"it has {here} in a text or a comment, where there are no labels"
    return ""


def _depth(query: str) -> int:
    """Return the maximum nesting of parentheses, including parentheses in strings."""
    return max(accumulate((char == "(") - (char == ")") for char in query), default=0)


def _unwrapped(expression: Expr) -> Expr:
    while isinstance(expression, ParenExpr):
        expression = expression.expr
    return expression


def _selectors(expression: Expr) -> list[VectorSelector]:
    """Return all vector selectors of a query, including the selectors in ranges.

    The function `walk` of promql_parser does the same, but takes cubic time.
    """
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
