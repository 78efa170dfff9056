"""Checks of the repository itself: no tracked file is large, and a merge commit says what it merges.

`python -m ci.repository` checks the tracked files and the new commits (`make test`). `python -m ci.repository FILE` checks the
message in FILE, which git gives to a commit-msg hook (`.pre-commit-config.yaml`).
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pulumi import RunError

from . import edge, process
from .call import REPOSITORY

MAX_KB = 1000
"""Kilobytes of a tracked file; the largest of today is a go.sum of 592."""
LAST = 20
"""Commits that are checked where no branch is upstream."""
_LETTER = re.compile(r"Merge (?:remote-tracking )?branch '(?:(?:.*[-_/])?[A-Za-z]|[A-Za-z]\d+)'")
"""The subject that git writes for a branch whose name is, or ends with, one letter."""


def main(message: str = "") -> None:
    """Check the repository, or the commit message in a file.

    Raises:
        RunError: a file is large, or the subject of a merge commit is unclear.
    """
    if message:
        text = Path(message).read_text(encoding="utf-8", errors="replace").strip()
        refuse_unclear([text.partition("\n")[0]])
        return
    top = git("rev-parse", "--show-toplevel")
    if top.returncode or Path(top.stdout.strip()).resolve() != REPOSITORY.resolve():
        reason = top.stderr.strip().partition("\n")[0] or "it belongs to another repository"
        print(f"repository: no git history of this folder ({reason}); tracked files and merge commits are not checked")
        return
    refuse_large()
    refuse_unclear([*new_merges()])


def refuse_large() -> None:
    """Refuse tracked files of more than `MAX_KB`. Links are not followed.

    Raises:
        RunError: a file is larger.
    """
    tracked = git("ls-files", "-z").stdout.split("\0")
    files = [name for name in tracked if (REPOSITORY / name).is_file() and not (REPOSITORY / name).is_symlink()]
    words = ["-m", "pre_commit_hooks.check_added_large_files", "--enforce-all", f"--maxkb={MAX_KB}"]
    done = subprocess.run([sys.executable, *words, "--", *files], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{(done.stdout + done.stderr).strip()}; keep such a file outside of the repository")


def refuse_unclear(subjects: Sequence[str]) -> None:
    """Refuse subjects of merge commits that name a branch by a letter.

    Raises:
        RunError: a subject does.
    """
    unclear = [subject for subject in subjects if _LETTER.match(subject)]
    if unclear:
        raise RunError(f"{'; '.join(unclear)}: it does not say what was merged; reword the commit")


def new_merges() -> Iterator[str]:
    """Yield the subject of each merge commit that is not upstream yet, or is one of the last `LAST` commits."""
    for line in git("log", "--format=%p%x00%s", *_new()).stdout.splitlines():
        parents, subject = line.split("\0")
        if len(parents.split()) > 1:
            yield subject


def _new() -> list[str]:
    """Return the arguments of `git log` that select the new commits.

    The branch upstream is the target of a pull request on GitHub, the branch that this one tracks, or the remote's default branch.
    """
    target = os.environ.get("GITHUB_BASE_REF")
    for branch in ([f"origin/{target}"] if target else []) + ["@{upstream}", "origin/HEAD"]:
        if not git("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}").returncode:
            return ["HEAD", f"^{branch}"]
    return ["HEAD", f"--max-count={LAST}"]


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository and return its output. A machine without git gives exit code 127."""
    try:
        return process.capture(["git", *words], cwd=REPOSITORY)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", "git is not installed")


if __name__ == "__main__":
    edge.end("repository", lambda: main(*edge.arguments("repository [FILE]", 0, 1)))
