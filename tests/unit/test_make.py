"""Tests of the Makefile: neither make nor a shell executes any part of a value that a user sets."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ci import commands, make_call
from ci.make_call import CallError, parse

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
"""Script that recipes start instead of the real programs. The script records its arguments and all `TIERS_ARG_` variables."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with the Makefile. In it, each program that a recipe starts is replaced by a copy of STUB."""
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
    (tmp_path / "requirements/requirements-docs.txt").touch()
    (tmp_path / ".venv/.installed").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


RecordedCall = tuple[list[str], dict[str, str]]


def make(clone: Path, *words: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[RecordedCall]]:
    """Run make. Return the result of the process, and the arguments and variables that the stubs recorded."""
    record = clone / "seen"
    record.unlink(missing_ok=True)
    result = subprocess.run(
        ["make", *words], cwd=clone, capture_output=True, text=True, timeout=300,
        env={"PATH": f"{clone / 'bin'}:/usr/bin:/bin", "HOME": str(clone), "SEEN": str(record), **variables},
    )  # fmt: skip
    return result, [*recorded_calls_in(record.read_text())] if record.exists() else []


def recorded_calls_in(text: str) -> Iterator[RecordedCall]:
    """Parse the text that the stubs wrote, and yield the arguments and variables of each call."""
    for run in text.split("end=\0")[:-1]:
        pairs = [pair.partition("=") for pair in run.split("\0")[:-1]]
        words = [value for name, _, value in pairs if name == "word"]
        yield words, {name: value for name, _, value in pairs if name != "word"}


def attack_values(canary: Path) -> list[str]:
    """Return values that create the file `canary` if make or a shell executes them."""
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


def variables_with(value: str) -> dict[str, str]:
    return dict.fromkeys([*make_call.VARIABLES, "STACK", "UNKNOWN"], value)


@pytest.mark.parametrize("quote", ["", '"', "'"])
@pytest.mark.parametrize("from_environment", [False, True], ids=["argument", "environment"])
def test_no_make_target_executes_the_value_of_a_variable(clone: Path, from_environment: bool, quote: str) -> None:
    canary = clone / "canary"
    variables = variables_with(quote + "".join(attack_values(canary)))
    words = [] if from_environment else [f"{name}={text}" for name, text in variables.items()]
    _, recorded_calls = make(clone, "--keep-going", *TARGETS, *words, **(variables if from_environment else {}))
    assert len(recorded_calls) > len(commands.TARGETS)
    assert not canary.exists()


def test_make_with_the_option_just_print_does_not_execute_the_value_of_a_variable(clone: Path) -> None:
    canary = clone / "canary"
    for value in attack_values(canary):
        result, _ = make(
            clone, "--just-print", *TARGETS, *[f"{name}={text}" for name, text in variables_with(value).items()]
        )
        assert "-m ci trace" in result.stdout
        assert str(canary) not in result.stdout
    assert not canary.exists()


@pytest.mark.parametrize("value", ["a b", "$(shell true)", "it's", '"', "a\nb", "`x`", "é", "$$", "#x", "a\\"])
def test_value_of_a_make_variable_reaches_the_runner_unchanged(clone: Path, value: str) -> None:
    _, recorded_calls = make(clone, "trace", f"ID={value}", "ENV=prod")
    assert recorded_calls == [(["-m", "ci", "trace"], {"TIERS_ARG_ID": value, "TIERS_ARG_ENV": "prod"})]


def test_variable_stack_is_accepted_on_the_make_command_line_and_ignored_in_the_process_environment(
    clone: Path,
) -> None:
    assert make(clone, "status", "STACK=prod")[1][0][1] == {"TIERS_ARG_ENV": "prod"}
    assert make(clone, "status", STACK="prod")[1][0][1] == {}
    assert make(clone, "status", ENV="prod")[1][0][1] == {"TIERS_ARG_ENV": "prod"}


def test_recipes_of_the_makefile_do_not_expand_variables_of_the_user() -> None:
    recipes = [line for line in MAKEFILE.splitlines() if line.startswith("\t")]
    assert len(recipes) > 50
    for name in make_call.VARIABLES - {"SHORT"}:
        assert not [line for line in recipes if re.search(rf"\$[({{]{name}\b", line)], name


def test_every_target_of_the_runner_exists_in_the_makefile() -> None:
    targets_of_the_runner = re.findall(
        r"^([a-z][a-z0-9-]*):.*\n\t@.* -m ci \$@|^([a-z][a-z0-9-]*):.*\n\t@\$\(RUNNER\) \$@", MAKEFILE, re.MULTILINE
    )
    assert {first_form or second_form for first_form, second_form in targets_of_the_runner} == {*commands.TARGETS}


def test_make_targets_can_run_in_parallel(clone: Path) -> None:
    result, recorded_calls = make(clone, "--jobs=4", "status", "backups", "waiting", "deployed")
    assert not result.returncode
    assert sorted(words[-1] for words, _ in recorded_calls) == ["backups", "deployed", "status", "waiting"]


def test_make_help_lists_every_target_with_a_description(clone: Path) -> None:
    help_text = make(clone)[0].stdout
    for name in commands.TARGETS:
        assert f"  make {name} " in help_text


# ---------------------------------------------------------------------- values of variables


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"ENV": ""}, "ENV is empty; set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml"),
        ({"ENV": "../dev"}, "ENV: '../dev' is not valid; set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml"),
        ({"ENV": "-x"}, "ENV: '-x' is not valid"),
        ({"ENV": "a b"}, "ENV: 'a b' is not valid"),
        ({"ENV": "dev\n"}, "ENV: 'dev"),
        ({"ENV": "é"}, "ENV: "),
        ({"ENV": "x" * 200}, "ENV: "),
        ({"APP": "nowhere"}, "there is no nowhere/Pulumi.yaml; set APP to the folder of an application"),
        ({"APP": "a\0b"}, "set APP to the folder of an application"),
        ({"APP": "x" * 5000}, "set APP to the folder of an application"),
        ({"SLOT": "purple"}, "SLOT: 'purple' is not valid; set SLOT to live, idle, blue or green, or remove SLOT"),
        ({"SERVICE": "api;ls"}, "SERVICE: 'api;ls' is not valid; set SERVICE to the name of a service, such as api"),
        ({"SINCE": "yesterday"}, "SINCE: 'yesterday' is not valid; set SINCE to an age, such as 30s, 10m, 2h or 1d"),
        ({"FOLLOW": "maybe"}, "FOLLOW: 'maybe' is not valid; set FOLLOW to no, or remove FOLLOW"),
        ({"WINDOW": "30"}, "WINDOW: '30' is not valid; set WINDOW to a time like 30s"),
        ({"FROM": "$(x)"}, "FROM: "),
        ({"NAME": "--help"}, "NAME: "),
        ({"OF": "a;b"}, "OF: "),
        ({"TO": "a b"}, "TO: "),
        ({"ONLY": "a;b"}, "ONLY: "),
        ({"SEED": "x"}, "SEED: 'x' is not valid; set SEED to a whole number, such as 7"),
        ({"COUNT": "-1"}, "COUNT: "),
    ],
)  # fmt: skip
def test_invalid_value_of_a_make_variable_is_refused(values: Mapping[str, str], problem: str) -> None:
    with pytest.raises(CallError) as error:
        make_call.Call(target="status", values=values).validate()
    assert problem in str(error.value)


def test_variables_of_make_are_removed_from_the_environment_of_child_processes() -> None:
    environment = {"TIERS_ARG_ENV": "prod", "TIERS_ARG_ID": "x y", "MAKEFLAGS": " -- ID=x", "HOME": "/root"}
    call_ = parse(["trace", "ID=z"], environment)
    assert (call_.env, call_["ID"], call_["TO"]) == ("prod", "z", "")
    assert environment == {"HOME": "/root"}


@pytest.mark.parametrize("word", ["x", "HOME=/", "=x", "-h"])
def test_unknown_make_variable_is_refused(word: str) -> None:
    with pytest.raises(CallError, match="is not a variable of this Makefile"):
        parse(["status", word], {})


def test_runner_starts_no_shell() -> None:
    for file in [*(ROOT / "ci").rglob("*.py"), *(ROOT / "lab").glob("*.py")]:
        text = file.read_text()
        assert not re.search(r"shell=True|os\.system\(|os\.popen\(", text), file
