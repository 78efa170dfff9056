"""Functions that escape and shorten texts, so that no text breaks the comment's Markdown or its maximum length."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

LIMIT = 65_536
"""Maximum characters of a comment on GitHub."""
SHARE = LIMIT // 8
"""Maximum characters of a list in the comment: errors, dangers, changes in place, warnings."""
WIDTH = 120
"""Maximum characters of a value."""
ITEMS = 12
"""Maximum number of items named in one line."""


def shorten(text: str, width: int = WIDTH) -> str:
    """Shorten a text to one line of at most `width` characters, and replace "```", which would end a Markdown fence."""
    text = text.replace("```", "'''").replace("\n", "⏎").replace("\r", "")
    return text if len(text) <= width else f"{text[: width - 1]}…"


def escape(text: str, width: int = WIDTH) -> str:
    """Return a text of at most `width` characters that is safe between backticks in a table."""
    return shorten(text, width).replace("`", "'").replace("|", "¦")


def join(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first `ITEMS` items in one line, and the number of items that are left out."""
    more = len(items) - ITEMS
    return separator.join([*items[:ITEMS], *([f"and {more} more"] if more > 0 else [])])


def fit(texts: Sequence[str], room: int, rest: str) -> list[str]:
    """Return the texts that fit into `room` characters. If texts are left out, append `rest` with their number."""
    fits = sum(size <= room for size in accumulate(len(text) + 1 for text in texts))
    return [*texts[:fits], *([rest.format(len(texts) - fits)] if fits < len(texts) else [])]


def bullets(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines as one Markdown list, or nothing if there are no lines."""
    if items := [f"- {line}" for line in lines]:
        yield "\n".join(fit(items, SHARE, "- and {} more like these"))
