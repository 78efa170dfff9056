"""Checks of the repository itself: no tracked file is too large, and each merge commit says what it merges.

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

from . import command_line, process
from .make_call import REPOSITORY

MAX_KB = 1000
"""Maximum size of a tracked file in kilobytes. The largest tracked file, a go.sum, has about 600 kilobytes."""
COMMITS_WITHOUT_UPSTREAM = 20
"""Number of commits to check if there is no upstream branch."""
_UNCLEAR_SUBJECT = re.compile(r"Merge (?:remote-tracking )?branch '(?:(?:.*[-_/])?[A-Za-z]|[A-Za-z]\d+)'")
"""Pattern of git's default merge subject with a meaningless branch name, such as `x`, `x1`, `fix-x` or `team/x`."""


def main(message: str = "") -> None:
    """Check the repository, or the commit message in a file.

    Raises:
        RunError: a file is too large, or the subject of a merge commit is unclear.
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
    """Raise an error if a tracked file is larger than `MAX_KB`. Symbolic links are not checked.

    Raises:
        RunError: a file is too large.
    """
    tracked = git("ls-files", "-z").stdout.split("\0")
    files = [name for name in tracked if (REPOSITORY / name).is_file() and not (REPOSITORY / name).is_symlink()]
    words = ["-m", "pre_commit_hooks.check_added_large_files", "--enforce-all", f"--maxkb={MAX_KB}"]
    done = subprocess.run([sys.executable, *words, "--", *files], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{(done.stdout + done.stderr).strip()}; keep such a file outside of the repository")


def refuse_unclear(subjects: Sequence[str]) -> None:
    """Raise an error if a subject is git's default merge subject with a meaningless branch name, such as `x`.

    Raises:
        RunError: a subject is unclear.
    """
    unclear = [subject for subject in subjects if _UNCLEAR_SUBJECT.match(subject)]
    if unclear:
        raise RunError(f"{'; '.join(unclear)}: the subject does not say what was merged; reword the commit")


def new_merges() -> Iterator[str]:
    """Yield the subjects of merge commits that the upstream branch lacks.

    Without an upstream branch, only the last `COMMITS_WITHOUT_UPSTREAM` commits are searched.
    """
    for line in git("log", "--format=%p%x00%s", *_new_commits_range()).stdout.splitlines():
        parents, subject = line.split("\0")
        if len(parents.split()) > 1:
            yield subject


def _new_commits_range() -> list[str]:
    """Return the arguments of `git log` that select the new commits.

    New commits are commits that the upstream branch lacks. The upstream branch is the first existing branch of these:

    1. the target branch of the pull request on GitHub
    2. the branch that the current branch tracks
    3. the default branch of the remote
    """
    target = os.environ.get("GITHUB_BASE_REF")
    for branch in ([f"origin/{target}"] if target else []) + ["@{upstream}", "origin/HEAD"]:
        if not git("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}").returncode:
            return ["HEAD", f"^{branch}"]
    return ["HEAD", f"--max-count={COMMITS_WITHOUT_UPSTREAM}"]


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository and return its result. If git is not installed, the exit code is 127."""
    try:
        return process.capture(["git", *words], cwd=REPOSITORY)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", "git is not installed")


if __name__ == "__main__":
    command_line.run_and_exit("repository", lambda: main(*command_line.arguments("repository [FILE]", 0, 1)))
