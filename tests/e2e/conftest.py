"""Engines of the end-to-end run. A missing engine is an error, never a skipped test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import urllib3
from docker.errors import DockerException
from pulumi import RunError

from components.platforms import cluster

from . import leftovers
from .seen import Seen
from .stack import DockerStack

# The lab's gateway has a self-signed certificate.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form: 20 releases, an engine killed at 30 points")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seen())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "test_scan.py" and not config.getoption("soak") else None


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[None]:
    """Require Pulumi and both engines, without leftovers of an earlier run."""
    if not shutil.which("pulumi"):
        pytest.exit("no `pulumi` on PATH: run `make lab`, then `make e2e`", returncode=2)
    if not _answers("lab"):
        pytest.exit("no cluster answers as context lab: run `make lab-cluster`, then `make e2e`", returncode=2)
    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.exit(f"no Docker engine answers ({error}): run `make lab`, then `make e2e`", returncode=2)
    with leftovers.removed_unless_in_use():
        yield


def _answers(context: str) -> bool:
    try:
        cluster.check(context)
    except RunError:
        return False
    return True


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    """Deploy the board once for the tests of a module, which run in their order."""
    board = DockerStack(tmp_path_factory.mktemp("board"), "e2e")
    try:
        board.up()
        yield board
    finally:
        board.destroy(check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Create a folder with a name short enough for a socket below it, and remove it with the engine's mounts afterwards."""
    folder = tmp_path_factory.mktemp("e")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
