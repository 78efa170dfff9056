"""The Makefile: variables are text from users, and neither make nor a shell runs any part of them."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ci import call, commands
from ci.call import CallError, parse

ROOT = Path(__file__).parents[2]

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE)
STUB = """#!/bin/bash
exec 9>> "$SEEN"; flock 9
{
    for word in "$@"; do printf 'word=%s\\0' "$word"; done
    for name in "${!TIERS_ARG_@}"; do printf '%s=%s\\0' "$name" "${!name}"; done
    printf 'end=\\0'
} >&9
"""
"""Stand-in for each program that a recipe starts: it records its words and make's variables."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Create a folder with the Makefile, in which every program is the stub."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("ruff", "pyright", "python"):
        (tmp_path / ".venv/bin" / name).write_text(STUB)
    for name in ("python3", "pulumi", "actionlint", "docker"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(STUB)
    for file in [*(tmp_path / "bin").iterdir(), *(tmp_path / ".venv/bin").iterdir()]:
        file.chmod(0o755)
    (tmp_path / "docs/previews").mkdir(parents=True)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/requirements-dev.txt").touch()
    (tmp_path / ".venv/.installed").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


Seen = tuple[list[str], dict[str, str]]


def make(clone: Path, *words: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[Seen]]:
    """Run make, and return the words and variables that the stubs recorded."""
    seen = clone / "seen"
    seen.unlink(missing_ok=True)
    done = subprocess.run(
        ["make", *words], cwd=clone, capture_output=True, text=True, timeout=300,
        env={"PATH": f"{clone / 'bin'}:/usr/bin:/bin", "HOME": str(clone), "SEEN": str(seen), **variables},
    )  # fmt: skip
    return done, [*noted(seen.read_text())] if seen.exists() else []


def noted(text: str) -> Iterator[Seen]:
    """Parse the record of the stubs."""
    for run in text.split("end=\0")[:-1]:
        pairs = [pair.partition("=") for pair in run.split("\0")[:-1]]
        words = [value for name, _, value in pairs if name == "word"]
        yield words, {name: value for name, _, value in pairs if name != "word"}


def attack(canary: Path) -> list[str]:
    """Return values that would run a command in make, in a shell, in quotes of either kind, or on a line of their own."""
    touch = f"touch {canary}"
    return [
        f"$(shell {touch})",
        f"`{touch}`",
        f"$({touch})",
        f"$$({touch})",
        f"x; {touch}; #",
        f'x"; {touch}; "',
        f"x'; {touch}; '",
        f"x\n\t{touch}\n",
        f"x && {touch} || {touch} | {touch}",
        f"$(eval $(shell {touch}))",
        f"${{shell {touch}}}",
        f"x) {touch} (",
        f"$(file >{canary})",
    ]


def assigned(value: str) -> dict[str, str]:
    return dict.fromkeys([*call.VARIABLES, "STACK", "UNKNOWN"], value)


@pytest.mark.parametrize("quote", ["", '"', "'"])
@pytest.mark.parametrize("from_environment", [False, True], ids=["argument", "environment"])
def test_no_value_of_a_variable_is_run_by_any_target(clone: Path, from_environment: bool, quote: str) -> None:
    canary = clone / "canary"
    variables = assigned(quote + "".join(attack(canary)))
    words = [] if from_environment else [f"{name}={text}" for name, text in variables.items()]
    _, seen = make(clone, "--keep-going", *TARGETS, *words, **(variables if from_environment else {}))
    assert len(seen) > len(commands.TARGETS)
    assert not canary.exists()


def test_no_value_of_a_variable_is_run_while_targets_are_printed(clone: Path) -> None:
    canary = clone / "canary"
    for value in attack(canary):
        done, _ = make(clone, "--just-print", *TARGETS, *[f"{name}={text}" for name, text in assigned(value).items()])
        assert "-m ci trace" in done.stdout
        assert str(canary) not in done.stdout
    assert not canary.exists()


@pytest.mark.parametrize("value", ["a b", "$(shell true)", "it's", '"', "a\nb", "`x`", "é", "$$", "#x", "a\\"])
def test_value_reaches_the_runner_unchanged(clone: Path, value: str) -> None:
    _, seen = make(clone, "trace", f"ID={value}", "ENV=prod")
    assert seen == [(["-m", "ci", "trace"], {"TIERS_ARG_ID": value, "TIERS_ARG_ENV": "prod"})]


def test_stack_names_the_environment_on_the_command_line_only(clone: Path) -> None:
    assert make(clone, "status", "STACK=prod")[1][0][1] == {"TIERS_ARG_ENV": "prod"}
    assert make(clone, "status", STACK="prod")[1][0][1] == {}
    assert make(clone, "status", ENV="prod")[1][0][1] == {"TIERS_ARG_ENV": "prod"}


def test_recipe_expands_no_variable_of_the_user() -> None:
    recipes = [line for line in MAKEFILE.splitlines() if line.startswith("\t")]
    assert len(recipes) > 50
    for name in call.VARIABLES - {"SHORT"}:
        assert not [line for line in recipes if re.search(rf"\$[({{]{name}\b", line)], name


def test_every_target_of_the_runner_is_a_target_of_make() -> None:
    by_runner = re.findall(
        r"^([a-z][a-z0-9-]*):.*\n\t@.* -m ci \$@|^([a-z][a-z0-9-]*):.*\n\t@\$\(RUNNER\) \$@", MAKEFILE, re.MULTILINE
    )
    assert {one or other for one, other in by_runner} == {*commands.TARGETS}


def test_targets_run_in_parallel(clone: Path) -> None:
    done, seen = make(clone, "--jobs=4", "status", "backups", "waiting", "deployed")
    assert not done.returncode
    assert sorted(words[-1] for words, _ in seen) == ["backups", "deployed", "status", "waiting"]


def test_help_lists_every_target_with_a_description(clone: Path) -> None:
    listed = make(clone)[0].stdout
    for name in commands.TARGETS:
        assert f"  make {name} " in listed


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"ENV": ""}, "ENV is empty; ENV is the name of a stack file"),
        ({"ENV": "../dev"}, "ENV is '../dev'; ENV is the name of a stack file"),
        ({"ENV": "-x"}, "ENV is '-x'"),
        ({"ENV": "a b"}, "ENV is 'a b'"),
        ({"ENV": "dev\n"}, "ENV is 'dev"),
        ({"ENV": "é"}, "ENV is"),
        ({"ENV": "x" * 200}, "ENV is"),
        ({"APP": "nowhere"}, "there is no nowhere/Pulumi.yaml; APP is the folder of an application"),
        ({"APP": "a\0b"}, "APP is the folder of an application"),
        ({"APP": "x" * 5000}, "APP is the folder of an application"),
        ({"SLOT": "blue"}, "SLOT is 'blue'; SLOT is idle, or left out"),
        ({"WINDOW": "30"}, "WINDOW is '30'; WINDOW is a time like 30s"),
        ({"FROM": "$(x)"}, "FROM is"),
        ({"NAME": "--help"}, "NAME is"),
        ({"OF": "a;b"}, "OF is"),
        ({"TO": "a b"}, "TO is"),
        ({"ONLY": "a;b"}, "ONLY is"),
        ({"SEED": "x"}, "SEED is 'x'; SEED is a whole number, as 7"),
        ({"COUNT": "-1"}, "COUNT is"),
    ],
)  # fmt: skip
def test_invalid_value_of_a_variable_is_refused(values: Mapping[str, str], problem: str) -> None:
    with pytest.raises(CallError) as refused:
        call.Call(target="status", values=values).refuse()
    assert problem in str(refused.value)


def test_variables_of_make_are_removed_from_the_environment_of_child_processes() -> None:
    environment = {"TIERS_ARG_ENV": "prod", "TIERS_ARG_ID": "x y", "MAKEFLAGS": " -- ID=x", "HOME": "/root"}
    call_ = parse(["trace", "ID=z"], environment)
    assert (call_.env, call_["ID"], call_["TO"]) == ("prod", "z", "")
    assert environment == {"HOME": "/root"}


@pytest.mark.parametrize("word", ["x", "HOME=/", "=x", "-h"])
def test_unknown_variable_is_refused(word: str) -> None:
    with pytest.raises(CallError, match="is no variable"):
        parse(["status", word], {})


def test_runner_starts_no_shell() -> None:
    for file in [*(ROOT / "ci").rglob("*.py"), *(ROOT / "lab").glob("*.py")]:
        text = file.read_text()
        assert not re.search(r"shell=True|os\.system\(|os\.popen\(", text), file
