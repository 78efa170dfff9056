"""The comment of a preview, in Markdown: verdict, errors, release, diagram, dangers and all changes."""

from collections import Counter
from collections.abc import Iterator

from .diagram import diagram
from .diff import changes_in_place, folded_diff
from .markdown import LIMIT, SHARE, WIDTH, bullets, escape, fit, shorten
from .read import Op, Preview
from .release_table import release_table
from .risk import Verdict, dangers, verdict


def render_comment(preview: Preview) -> str:
    """Return the comment, of at most `LIMIT` characters. The diff is cut to the remaining space."""
    parts = [marker(preview.stack), _headline(preview), *_errors(preview), *release_table(preview), *diagram(preview)]
    warnings = (f"warning: `{escape(text)}`" for text in preview.warnings)
    parts += [*bullets(dangers(preview)), *bullets(changes_in_place(preview)), *bullets(warnings)]
    head = "\n\n".join(parts) + "\n"
    return head + folded_diff(preview, LIMIT - len(head))


def marker(stack: str) -> str:
    """Return the first line of a stack's comment, which is invisible when rendered."""
    return f"<!-- tiers-preview {stack} -->"


def _headline(preview: Preview) -> str:
    count_by_op = Counter(change.op for change in preview.changes)
    counts = ", ".join(f"{count_by_op[op]} {op.word}" for op in [*[*Op][1:], Op.SAME] if count_by_op[op])
    result = verdict(preview)
    if not preview.errors:
        return f"**{preview.stack}: {result}** ({counts or 'no resources'})"
    prefix = f"{result}, and " if result is not Verdict.NONE else ""
    return f"**{preview.stack}: {prefix}the preview failed**" + (f" (as far as it got: {counts})" if counts else "")


def _errors(preview: Preview) -> Iterator[str]:
    if preview.errors:
        lines = [shorten(line, 4 * WIDTH) for line in "\n\n".join(preview.errors).splitlines()]
        yield "\n".join(["```text", *fit(lines, SHARE, "({} more lines are left out)"), "```"])
