"""Tests of applications that `make new` and `make import` create.

The tests deploy each application unchanged, except for the gateway's port.
"""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from ci.compose.__main__ import normalise

from .stack import ROOT, copy_repository, eventually, free_port

pytestmark = pytest.mark.long
COMPOSE_FILES = ROOT / "tests" / "compose"
"""Folder with the Compose files that unit tests import, and with the normalised form of each file."""
VARIABLES = {
    "API_IMAGE": "board-api:1",
    "WEB_IMAGE": "board-web:1",
    "SECRETS": "/srv/secrets",
    "TOOLBOX": "/srv/toolbox.py",
    "PORT": "8080",
}


class Clone:
    """A copy of the repository in which a test runs make as a user does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        copy_repository(folder)
        state = folder / ".state"
        state.mkdir()
        self.variables = os.environ | {"PULUMI_BACKEND_URL": f"file://{state}", "COMPOSE_PROFILES": ""}

    def make(self, *words: str) -> str:
        """Run make, and return its output."""
        process = subprocess.run(
            ["make", *words], cwd=self.folder, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=900,
        )  # fmt: skip
        assert not process.returncode, process.stdout
        return process.stdout

    def settings(self, name: str) -> dict[str, Any]:
        """Return the content of an application's stack file for dev."""
        return yaml.safe_load((self.folder / "apps" / name / "Pulumi.dev.yaml").read_text())

    @contextmanager
    def up(self, name: str) -> Generator[str]:
        """Deploy an application, yield its URL, and remove the application after the `with` block."""
        app = f"APP=apps/{name}"
        try:
            self.make("up", app)
            yield f"http://127.0.0.1:{self.settings(name)['config'][f'{name}:environment']['gateway']['port']}"
        finally:
            self.make("down", app)
        names = [str(container.name) for container in docker.from_env().containers.list(all=True)]
        assert not [entry for entry in names if entry.startswith(f"{name}-dev-")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


@pytest.fixture(scope="module", autouse=True)
def install_compose() -> None:
    """Install Docker Compose if it is missing."""
    subprocess.run(["python3", "-m", "lab", "up", "compose"], cwd=ROOT, check=True)


def test_normalised_files_of_unit_tests_equal_the_output_of_compose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(COMPOSE_FILES, tmp_path / "compose")
    shutil.copy(ROOT / "benchmarks" / "compose.yml", tmp_path / "compose" / "board.yml")
    files = [*sorted(tmp_path.glob("compose/*/*compose.y*ml")), tmp_path / "compose" / "board.yml"]
    assert len(files) == 5
    for file in files:
        name = file.stem if file.parent.name == "compose" else file.parent.name
        expected = (
            (COMPOSE_FILES / f"{name}.normalised.yml").read_text().replace("/srv/compose", str(tmp_path / "compose"))
        )
        assert normalise(file) == yaml.safe_load(expected), name


def test_application_imported_from_a_compose_file_works_unchanged(clone: Clone) -> None:
    """The application reads DATABASE_URL and REDIS_URL, and no file with a secret."""
    output = clone.make("import", "COMPOSE=tests/compose/classic/docker-compose.yml", "NAME=todo")
    assert "services.mail: no tier fits it; run it elsewhere, set its address in env, and set egress: true" in output
    written_files = "".join(file.read_text() for file in (clone.folder / "apps" / "todo").iterdir())
    assert "todo123" not in output + written_files
    assert "change-me" not in output + written_files
    settings = clone.settings("todo")
    settings["config"]["todo:environment"]["gateway"] = {"port": free_port()}
    (clone.folder / "apps" / "todo" / "Pulumi.dev.yaml").write_text(yaml.safe_dump(settings))
    with clone.up("todo") as url:
        assert "<h1>todo</h1>" in requests.get(url, timeout=10).text
        assert requests.post(f"{url}/api/todos", json={"text": "carried"}, timeout=10).status_code == 201
        answer = requests.get(f"{url}/api/todos", timeout=10).json()
        assert answer["todos"] == ["carried"]
        assert answer["asked"] >= 1


def test_new_application_answers_and_reloads_edited_files(clone: Clone) -> None:
    output = clone.make("new", "NAME=shop")
    assert "make up APP=apps/shop" in output
    with clone.up("shop") as url:
        assert requests.post(f"{url}/api/notes", json={"text": "a first one"}, timeout=10).status_code == 201
        assert requests.get(f"{url}/api/notes", timeout=10).json()[0]["text"] == "a first one"
        for file, before, after, path in (
            ("web/src/index.html", "<h1>notes", "<h1>edited", "/"),
            ("api/app/main.py", '"slot": settings.SLOT', '"slot": "edited"', "/api/release"),
        ):
            edited = clone.folder / "apps" / "shop" / file
            edited.write_text(edited.read_text().replace(before, after))
            eventually(lambda path=path: "edited" in requests.get(f"{url}{path}", timeout=10).text, 30)
        clone.make("check", "APP=apps/shop")
