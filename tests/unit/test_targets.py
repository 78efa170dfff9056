"""Every target of make with any files and any answers of Pulumi: it ends with an exit code and lines of text, never with a traceback."""

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

# The modules are imported before a test changes the working directory, because they take it for the application's folder.
from ci import backup, check, commands, dashboard, deploy, edge, pins, preview, process, sbom, slo, surroundings, trace
from ci import restore as restoring
from ci.call import Call

MODULES = (backup, check, dashboard, deploy, preview, sbom, trace, restoring)
ELSEWHERE = {"shell", "lab", "doctor", "new", "import", "screenshots", "scan", "prose"}
"""Targets that read no environment, or end in another program."""
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
ODD: Sequence[Any] = (
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
"""Output of Pulumi by a word of its command."""


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value with one part removed, renamed or of another type."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(ODD))
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
    """Return a strategy for files: correct ones, mutated ones, any bytes, or None for no file."""
    written = st.just(value) | mutated(value)
    texts = written.map(lambda entry: yaml.safe_dump(entry).encode())
    return st.one_of(texts, texts, texts, st.sampled_from(TEXTS), st.binary(max_size=40), st.none())


STACK_FILES = st.sampled_from(STACKS).flatmap(lambda entry: documents({"config": {"x:environment": entry}}))


class Foreseen:
    """Stand-in for Pulumi and every other program, with chosen answers."""

    def __init__(self, choice: int, code: int) -> None:
        self.choice, self.code = choice, code

    def capture(self, words: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        answers = next((texts for word, texts in ANSWERS.items() if word in words), ("",))
        text = answers[self.choice % len(answers)] if self.choice else "no JSON"
        return subprocess.CompletedProcess(
            words, self.code, text, "error: no stack named 't' found" if self.code else ""
        )

    def run(self, *_: Any, **__: Any) -> int:
        return self.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an application's folder; the test reads, changes and reaches nothing outside of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.setattr(commands, "_lab", lambda *_: 0)
    monkeypatch.setattr(surroundings, "STATE", tmp_path / "state")
    monkeypatch.setattr(process, "undo_when_stopped", lambda _: None)
    for module in [entry for name, entry in sys.modules.items() if name.startswith("ci.") and hasattr(entry, "ROOT")]:
        if module.__name__ not in ("ci.new", "ci.matrix"):
            monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(pins, "FILE", tmp_path / "release.json")
    monkeypatch.setattr(slo, "REPORTS", tmp_path / "reports")

    def nothing(*_: Any, **__: Any) -> Any:
        raise DockerException("no engine")

    monkeypatch.setattr("docker.from_env", nothing)
    monkeypatch.setattr("docker.DockerClient", nothing)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: _missing(words))
    return tmp_path


def _missing(words: Any) -> Any:
    raise FileNotFoundError(2, "No such file or directory", words[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    target=st.sampled_from(sorted(set(commands.TARGETS) - ELSEWHERE)),
    project=documents(PROJECT),
    stack=STACK_FILES,
    choice=st.integers(0, 24),
    code=st.sampled_from([0, 0, 1]),
    values=st.fixed_dictionaries({}, optional={"ENV": st.sampled_from(["t", "pr-1", "nope", "", "../t"]), "ID": st.text(max_size=5), "TO": st.sampled_from(["latest", "2026-01-01", "ab12", "2026-11-21T03:20:00Z"]), "OF": st.just("x"), "FROM": st.sampled_from(["prod", ""]), "WINDOW": st.sampled_from(["30s", "0s", "1x", "9h"]), "SLOT": st.just("idle"), "FULL": st.just("yes"), "PIN": st.just("yes"), "APP": st.sampled_from(["nowhere", "/proc/self/mem"])}),
    released=st.sampled_from([None, b"", b"[]", b"{}", b'{"environment.images.api": 5}', b"\xff"]),
)  # fmt: skip
def test_any_target_ends_with_a_code_and_a_message(
    folder: Path, target: str, project: bytes | None, stack: bytes | None, choice: int, code: int,
    values: dict[str, str], released: bytes | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = {"Pulumi.yaml": project, "Pulumi.t.yaml": stack, "Pulumi.staging.yaml": stack, "release.json": released}
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    (folder / "Pulumi.pr-1.yaml").unlink(missing_ok=True)
    foreseen = Foreseen(choice, code)
    monkeypatch.setattr(process, "capture", foreseen.capture)
    monkeypatch.setattr(process, "run", foreseen.run)
    unforeseen: list[Exception] = []
    monkeypatch.setattr(edge, "_unexpected", lambda _, error: unforeseen.append(error) or "")
    call = Call(target=target, values={"APP": str(folder), "ENV": "t", **values})
    ended = edge.attempt(target, lambda: commands.main(call))
    output = capsys.readouterr()
    if unforeseen:
        raise unforeseen[0]
    assert "Traceback" not in output.err
    assert ended == 0 or output.err.strip() or code, "it failed without a message"


@pytest.mark.parametrize("target", sorted(set(commands.TARGETS) - ELSEWHERE - {"built", "drift-issue"}))
def test_missing_stack_file_is_named(target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Pulumi.yaml").write_text(json.dumps(PROJECT))
    for env, line in {
        "nope": "there is no Pulumi.nope.yaml; ENV is the name of a stack file",
        "": "ENV is empty",
    }.items():
        call = Call(target=target, values={"APP": str(folder), "ENV": env})
        assert edge.attempt(target, lambda call=call: commands.main(call)) == 1
        assert capsys.readouterr().err.startswith(f"{target}: {line}")
