"""Tests of make targets with random files and random output of Pulumi.

A target must end with an exit code and a message, never with a traceback.
"""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import DockerException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Import these modules before a test changes the working directory, because they store this directory at import.
from ci import (
    backup,
    check,
    command_line,
    commands,
    dashboard,
    deploy,
    pins,
    preview,
    process,
    pulumi_environment,
    sbom,
    slo,
    trace,
)
from ci import restore as restoring
from ci.make_call import Call

MODULES = (backup, check, dashboard, deploy, preview, sbom, trace, restoring)
NOT_TESTED = {"shell", "lab", "doctor", "new", "import", "screenshots", "scan", "prose"}
"""Targets that this module does not test, because they read no stack file or start another program."""
PROJECT: dict[str, Any] = {
    "name": "x",
    "runtime": "python",
    "config": {
        "app": {
            "value": {
                "name": "x", "version": "1",
                "api": {"image": "x:1", "port": 8000, "needs": ["database", "cache"], "secrets": ["mail"], "volumes": {"files": "/srv/files"}},
                "database": {"image": "postgres:15"}, "cache": {"image": "redis:7"},
            }
        }
    },
}  # fmt: skip
STACKS: list[dict[str, Any]] = [
    {"platform": "docker", "monitoring": True, "images": {"api": "x:1@sha256:" + "1" * 64}},
    {
        "platform": "kubernetes",
        "registry": "127.0.0.1:5005/x",
        "kubernetes": {"context": "nowhere", "url": "http://x.localhost:8000", "gateway": {"name": "g", "namespace": "g", "listener": "http", "inside": "http://t.g:8000"}},
    },
]  # fmt: skip
UNUSUAL_VALUES: Sequence[Any] = (
    None,
    "",
    "x",
    "/",
    "-",
    0,
    -1,
    10**12,
    1.5,
    True,
    [],
    {},
    [None],
    {"x": None},
    ["x"] * 3,
    "é\n",
    "${X}",
    "a" * 300,
)
TEXTS = (b"", b"config:\n", b"\t", b"x: y: z\n", b"\xff\xfe\x00", b"name: caf\xe9\n", b"- 1\n", b"text", b"a: *a\n", b"{" * 200, b"config: {x:environment: }\n")  # fmt: skip
STACK_OF_X = '{"urn": "urn:pulumi:t::x::pulumi:pulumi:Stack::x-t", "type": "pulumi:pulumi:Stack", "outputs": {}}'
ANSWERS = {
    "whoami": ('{"url": "https://backend.example.com"}', '{"url": "file:///nowhere"}'),
    "history": ("[]", "null", '[{"result": "failed", "environment": {}, "config": {}}]', '[{"result": "succeeded", "environment": {"git.head": "abc"}}]'),
    "export": ('{"deployment": {}}', '{"version": 3, "deployment": {"resources": []}}', f'{{"version": 3, "deployment": {{"resources": [{STACK_OF_X}]}}}}'),
    "output": ("{}", '{"live": "blue", "url": "http://127.0.0.1:1", "release": "1-a"}', '{"live": "purple", "url": 5}', "http://127.0.0.1:1"),
    "ls": ("[]", '[{"name": "pr-1"}]'),
}  # fmt: skip
"""Possible outputs of Pulumi. The key is a word of the Pulumi command, such as `history`."""


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Draw a copy of `value` in which one key is renamed or one part is replaced by an unusual value."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(UNUSUAL_VALUES))
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    key = (
        draw(st.sampled_from(sorted(changed))) if isinstance(changed, dict) else draw(st.integers(0, len(changed) - 1))
    )
    if isinstance(changed, dict) and draw(st.integers(0, 5)) == 0:
        changed[draw(st.sampled_from(["x", "secure", "", "on", *changed]))] = changed.pop(key)
    else:
        changed[key] = draw(mutated(changed[key]))
    return changed


def documents(value: dict[str, Any]) -> st.SearchStrategy[bytes | None]:
    """Return a strategy for the content of a file.

    The strategy draws `value` as YAML, a mutated `value` as YAML, an unusual text, random bytes, or None for no file.
    """
    values_ = st.just(value) | mutated(value)
    texts = values_.map(lambda entry: yaml.safe_dump(entry).encode())
    return st.one_of(texts, texts, texts, st.sampled_from(TEXTS), st.binary(max_size=40), st.none())


STACK_FILES = st.sampled_from(STACKS).flatmap(lambda entry: documents({"config": {"x:environment": entry}}))


class ProgramStub:
    """Mock of Pulumi and all other programs. `choice` selects an output from ANSWERS, and `code` is the exit code."""

    def __init__(self, choice: int, code: int) -> None:
        self.choice, self.code = choice, code

    def capture(
        self, words: Sequence[str], *, cwd: Path | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        answers = next((texts for word, texts in ANSWERS.items() if word in words), ("",))
        answer = answers[self.choice % len(answers)] if self.choice else "no JSON"
        return subprocess.CompletedProcess(
            words, self.code, answer, "error: no stack named 't' found" if self.code else ""
        )

    def run(self, *_: Any, **__: Any) -> int:
        return self.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an application folder, and isolate the test from all other files, engines and clusters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.setattr(commands, "_lab", lambda *_: 0)
    monkeypatch.setattr(pulumi_environment, "STATE", tmp_path / "state")
    monkeypatch.setattr(process, "undo_when_stopped", lambda _: None)
    for module in [entry for name, entry in sys.modules.items() if name.startswith("ci.") and hasattr(entry, "ROOT")]:
        if module.__name__ not in ("ci.new", "ci.matrix"):
            monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(pins, "FILE", tmp_path / "release.json")
    monkeypatch.setattr(slo, "REPORTS", tmp_path / "reports")

    def raise_no_engine(*_: Any, **__: Any) -> Any:
        raise DockerException("no Docker engine answers")

    monkeypatch.setattr("docker.from_env", raise_no_engine)
    monkeypatch.setattr("docker.DockerClient", raise_no_engine)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: _raise_not_found(words))
    return tmp_path


def _raise_not_found(words: Any) -> Any:
    raise FileNotFoundError(2, "No such file or directory", words[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    target=st.sampled_from(sorted(set(commands.TARGETS) - NOT_TESTED)),
    project=documents(PROJECT),
    stack=STACK_FILES,
    choice=st.integers(0, 24),
    code=st.sampled_from([0, 0, 1]),
    values=st.fixed_dictionaries({}, optional={"ENV": st.sampled_from(["t", "pr-1", "nope", "", "../t"]), "ID": st.text(max_size=5), "TO": st.sampled_from(["latest", "2026-01-01", "ab12", "2026-11-21T03:20:00Z"]), "OF": st.just("x"), "FROM": st.sampled_from(["prod", ""]), "WINDOW": st.sampled_from(["30s", "0s", "1x", "9h"]), "SLOT": st.just("idle"), "FULL": st.just("yes"), "PIN": st.just("yes"), "APP": st.sampled_from(["nowhere", "/proc/self/mem"])}),
    release_file=st.sampled_from([None, b"", b"[]", b"{}", b'{"environment.images.api": 5}', b"\xff"]),
)  # fmt: skip
def test_any_make_target_with_any_input_ends_with_an_exit_code_and_a_message(
    folder: Path, target: str, project: bytes | None, stack: bytes | None, choice: int, code: int,
    values: dict[str, str], release_file: bytes | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = {"Pulumi.yaml": project, "Pulumi.t.yaml": stack, "Pulumi.staging.yaml": stack, "release.json": release_file}
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "Pulumi.pr-1.yaml").unlink(missing_ok=True)
    stub = ProgramStub(choice, code)
    monkeypatch.setattr(process, "capture", stub.capture)
    monkeypatch.setattr(process, "run", stub.run)
    monkeypatch.setattr(process, "exec_command", stub.run)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    unexpected_errors: list[Exception] = []
    monkeypatch.setattr(command_line, "_unexpected", lambda _, error: unexpected_errors.append(error) or "")
    call = Call(target=target, values={"APP": str(folder), "ENV": "t", **values})
    exit_code = command_line.attempt(target, lambda: commands.main(call))
    output = capsys.readouterr()
    if unexpected_errors:
        raise unexpected_errors[0]
    assert "Traceback" not in output.err
    assert exit_code == 0 or output.err.strip() or code, "the target failed without a message"


@pytest.mark.parametrize("target", sorted(set(commands.TARGETS) - NOT_TESTED - {"built", "drift-issue"}))
def test_error_about_a_missing_stack_file_names_the_file(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "Pulumi.yaml").write_text(json.dumps(PROJECT))
    for env, line in {
        "nope": "there is no Pulumi.nope.yaml; set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml",
        "": "ENV is empty",
    }.items():
        call = Call(target=target, values={"APP": str(folder), "ENV": env})
        assert command_line.attempt(target, lambda call=call: commands.main(call)) == 1
        assert capsys.readouterr().err.startswith(f"{target}: {line}")
