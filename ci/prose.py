"""List of texts for a review: texts that break a rule of style, and a random sample (`make prose SEED=7`).

The command never fails because of a text. A rule only finds candidates, and a reader decides whether a text is clear.
"""

import ast
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import repository
from .make_call import REPOSITORY, CallError

FIRST_WORDS = frozenset(
    [
        *("what", "who", "whom", "whose", "which", "whether", "where", "when", "how"),
        *("whatever", "whoever", "whichever", "wherever", "whenever", "nobody", "of"),
    ]
)
"""Words that a docstring must not begin with, because they hide the subject of the sentence."""
VAGUE_NAMES = frozenset(
    [
        *("asked", "found", "given", "held", "kept", "known", "made", "said", "told", "wanted"),
        *("each", "of", "own", "place", "there"),
    ]
)
"""Names that are reported: participles and pronouns, which do not say what a value is."""
SUBJECT_LENGTH = 72
"""Maximum characters of a commit subject. Common tools cut longer subjects."""
COMMITS = 200
"""Number of commits whose subjects are checked."""
SAMPLE = 20
"""Default number of texts of each kind in the sample."""
KINDS = ("docstrings", "errors", "test names")


@dataclass(frozen=True, kw_only=True, order=True)
class Text:
    """A docstring, an error message or a name, with its file and line."""

    file: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def main(seed: str = "", count: str = "") -> None:
    """Print the texts that break a rule, then the sample. Without a seed the sample is different in each call.

    Raises:
        CallError: the folder is not a git clone, or git is missing.
    """
    texts = [text for file in _git("ls-files", "-z", "*.py").split("\0") if file for text in read(REPOSITORY, file)]
    for line in [*candidates(texts), *long_subjects(_git("log", f"-{COMMITS}", "--format=%h %s").splitlines())]:
        print(line)
    seed = seed or str(random.randrange(10_000))  # noqa: S311 (a sample, not a secret)
    print(f"\nSample of SEED={seed}: which of these have to be read twice?")
    for kind in KINDS:
        print(f"\n{kind}:")
        for text in sample(texts, kind, seed, int(count or SAMPLE)):
            print(f"  {text}".replace("\n", "\n    "))


def read(root: Path, file: str) -> Iterator[Text]:
    """Yield the docstrings, error messages and names of one Python file, in no particular order."""
    tree = ast.parse((root / file).read_text(), file)
    for node in ast.walk(tree):
        yield from (Text(file=file, line=line, kind=kind, text=text) for line, kind, text in _texts(node))


def candidates(texts: Sequence[Text]) -> Iterator[str]:
    """Yield a line for each docstring and each name that breaks a rule, in the order of files and lines."""
    for text in sorted(set(texts)):
        if text.kind == "docstrings" and _first_word(text.text) in FIRST_WORDS:
            yield f"{text.file}:{text.line}: docstring begins with a pronoun or question word: {text.text.splitlines()[0]}"
        elif text.kind == "names" and text.text in VAGUE_NAMES:
            yield f"{text.file}:{text.line}: vague name: {text.text}"


def long_subjects(commits: Sequence[str]) -> Iterator[str]:
    """Yield a line for each commit (`hash subject`) with a subject that is too long."""
    for commit in commits:
        number, _, subject = commit.partition(" ")
        if len(subject) > SUBJECT_LENGTH:
            yield f"commit {number}: subject has {len(subject)} characters, at most {SUBJECT_LENGTH}: {subject}"


def sample(texts: Sequence[Text], kind: str, seed: str, count: int) -> list[Text]:
    """Return `count` texts of a kind, drawn at random. The same seed and texts give the same sample."""
    population = sorted({text for text in texts if text.kind == kind})
    return random.Random(f"{seed} {kind}").sample(population, min(count, len(population)))  # noqa: S311


def _texts(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each docstring, name and error in a node of the syntax tree."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        # A string as a statement is a docstring of the function or class, or of the attribute before the string.
        for statement in node.body:
            if isinstance(statement, ast.Expr) and (text := _string(statement.value)):
                yield statement.lineno, "docstrings", text.strip()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.lineno, "names", node.name
        if node.name.startswith("test_"):
            yield node.lineno, "test names", node.name
    elif isinstance(node, ast.ClassDef):
        yield node.lineno, "names", node.name
    elif isinstance(node, ast.arg):
        yield node.lineno, "names", node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.lineno, "names", node.id
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from ((node.lineno, "errors", text) for value in node.exc.args[:1] if (text := _string(value)))


def _string(node: ast.expr) -> str | None:
    """Return the text of a string or f-string (with expressions in braces), or None for another expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_string(part) or "" for part in node.values)
    return f"{{{ast.unparse(node.value)}}}" if isinstance(node, ast.FormattedValue) else None


def _first_word(text: str) -> str:
    return next(iter(re.findall(r"[A-Za-z']+", text)), "").lower()


def _git(*words: str) -> str:
    result = repository.git(*words)
    if result.returncode:
        raise CallError(
            f"`git {words[0]}` ended with exit code {result.returncode}: {result.stderr.strip()}; run this in a clone"
        )
    return result.stdout
