"""Tests of the checks of tracked files and merge commits, and of the pre-commit hooks that run these checks."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pulumi import RunError

from ci import repository

from .program import ROOT

HOOKS = {
    hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a repository with one commit on main, and make the checks use this repository."""
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path / "clone")
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GITHUB_BASE_REF"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "clone").mkdir()
    git(tmp_path / "clone", "init", "--quiet", "--initial-branch=main")
    commit(tmp_path / "clone", "Begin")
    return tmp_path / "clone"


def git(folder: Path, *words: str) -> str:
    settings = ("user.name=A", "user.email=a@example.com", "core.hooksPath=/dev/null", "core.fsync=none")
    return subprocess.run(
        ["git", *(word for setting in settings for word in ("-c", setting)), *words],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()


def commit(folder: Path, subject: str) -> None:
    git(folder, "commit", "--quiet", "--allow-empty", "--message", subject)


def merge(folder: Path, subject: str) -> None:
    """Create a branch with one commit, then merge the branch. `subject` is the subject of the merge commit."""
    git(folder, "checkout", "--quiet", "-b", "other")
    commit(folder, "Work")
    git(folder, "checkout", "--quiet", "-")
    git(folder, "merge", "--quiet", "--no-ff", "--message", subject, "other")
    git(folder, "branch", "--quiet", "--delete", "other")


@pytest.mark.parametrize(
    "subject",
    [
        "Merge branch 'a'",
        "Merge branch 'fix-Q'",
        "Merge branch 'team/b'",
        "Merge branch 'b2'",
        "Merge branch 'a' into develop",
        "Merge remote-tracking branch 'origin/a'",
    ],
)
def test_subject_of_a_merge_commit_that_names_only_a_one_letter_branch_is_refused(subject: str) -> None:
    with pytest.raises(RunError, match="the subject does not say what was merged"):
        repository.refuse_unclear(["Merge the policy pack", subject])


@pytest.mark.parametrize(
    "subject", ["Merge branch 'prod-ha'", "Merge branch 'release-2'", "Merge the policy pack", "Merge pull request #12"]
)
def test_clear_subject_of_a_merge_commit_is_accepted(subject: str) -> None:
    repository.refuse_unclear([subject])


def test_new_merge_commit_with_an_unclear_subject_is_refused(clone: Path) -> None:
    merge(clone, "Merge branch 'a'")
    with pytest.raises(RunError, match=r"^Merge branch 'a': "):
        repository.main()


def test_ordinary_commit_with_a_merge_subject_is_accepted(clone: Path) -> None:
    commit(clone, "Merge branch 'a'")
    repository.main()


def test_merge_commit_that_is_already_upstream_is_accepted(clone: Path, tmp_path: Path) -> None:
    merge(clone, "Merge branch 'a'")
    git(tmp_path, "clone", "--quiet", str(clone), "upstream")
    git(clone, "remote", "add", "origin", str(tmp_path / "upstream"))
    git(clone, "fetch", "--quiet", "origin")
    git(clone, "branch", "--quiet", "--set-upstream-to=origin/main")
    repository.main()
    merge(clone, "Merge branch 'b'")
    with pytest.raises(RunError, match=r"^Merge branch 'b': "):
        repository.main()


def test_unclear_merge_commit_of_a_pull_request_is_refused(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "--quiet", str(clone), "upstream")
    git(clone, "remote", "add", "origin", str(tmp_path / "upstream"))
    git(clone, "fetch", "--quiet", "origin")
    git(clone, "checkout", "--quiet", "--detach")
    merge(clone, "Merge branch 'a'")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    with pytest.raises(RunError, match="Merge branch 'a'"):
        repository.main()


def test_old_merge_commit_with_an_unclear_subject_is_accepted(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "COMMITS_WITHOUT_UPSTREAM", 2)
    merge(clone, "Merge branch 'a'")
    commit(clone, "Work")
    commit(clone, "More work")
    repository.main()


def test_check_of_merge_commits_accepts_a_shallow_clone(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(clone, "Merge branch 'a'")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{clone}", "shallow")
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path / "shallow")
    repository.main()


def test_check_of_the_repository_accepts_a_folder_without_git_history_and_prints_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    repository.main()
    assert "tracked files and merge commits are not checked" in capsys.readouterr().out


def test_check_of_the_repository_accepts_a_folder_inside_another_repository_and_prints_a_message(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / "unpacked").mkdir()
    monkeypatch.setattr(repository, "REPOSITORY", clone / "unpacked")
    repository.main()
    assert "it belongs to another repository" in capsys.readouterr().out


def test_check_of_the_repository_accepts_a_machine_without_git_and_prints_a_message(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(clone))
    repository.main()
    assert "git is not installed" in capsys.readouterr().out


def test_error_about_a_large_tracked_file_contains_its_name_and_size(clone: Path) -> None:
    (clone / "dump.sql").write_bytes(b"x" * (repository.MAX_KB + 1) * 1024)
    repository.main()
    git(clone, "add", "dump.sql")
    with pytest.raises(RunError, match=r"dump\.sql \(1001 KB\)"):
        repository.main()


def test_check_of_file_sizes_ignores_links_and_removed_files(clone: Path) -> None:
    (clone / "loop").symlink_to("loop")
    (clone / "removed").touch()
    git(clone, "add", "loop", "removed")
    (clone / "removed").unlink()
    repository.main()


@pytest.mark.parametrize("text", ["Merge branch 'a'\n", "\nMerge branch 'a'\n\n# Please enter a commit message\n"])
def test_commit_message_of_an_unclear_merge_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MERGE_MSG").write_text(text)
    with pytest.raises(RunError, match="Merge branch 'a'"):
        repository.main(str(tmp_path / "MERGE_MSG"))


@pytest.mark.parametrize("text", ["", "Merge the policy pack\n", "Revert \"Merge branch 'a'\"\n"])
def test_commit_message_of_a_clear_merge_or_an_ordinary_commit_is_accepted(tmp_path: Path, text: str) -> None:
    (tmp_path / "COMMIT_EDITMSG").write_text(text)
    repository.main(str(tmp_path / "COMMIT_EDITMSG"))


def test_every_pre_commit_hook_is_a_check_of_make_test() -> None:
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    commands = [line.strip() for line in recipe[1].replace("$(RUN)", ".venv/bin/python").splitlines()]
    for name in ("ruff-check", "ruff-format", "pyright", "merge-subject"):
        assert HOOKS[name]["entry"] in commands
    assert "actionlint" in commands
    assert HOOKS["large-files"]["entry"].endswith(f" --maxkb={repository.MAX_KB}")


def test_pre_commit_hooks_need_no_network() -> None:
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
