"""Shared fixtures of the end-to-end tests. If the Docker engine or the cluster is missing, pytest ends with an error."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import urllib3
from docker.errors import DockerException
from pulumi import RunError

from components.platforms.kubernetes import kubeconfig

from . import leftovers
from .recorder import ResultRecorder
from .stack import DockerStack

# Turn off the warnings about the self-signed certificate of the lab's gateway.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="run the long form: 20 releases, and Pulumi killed at 30 points"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ResultRecorder())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "test_scan.py" and not config.getoption("soak") else None


@pytest.fixture(scope="session", autouse=True)
def check_machine() -> Iterator[None]:
    """Check that Pulumi, the Docker engine and the cluster are ready, and remove the objects that killed runs have left."""
    if not shutil.which("pulumi"):
        pytest.exit("`pulumi` is not on PATH: run `make lab`, then `make e2e`", returncode=2)
    if not _is_reachable("lab"):
        pytest.exit(
            "the cluster of the kubeconfig context lab does not answer: run `make lab-cluster`, then `make e2e`",
            returncode=2,
        )
    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.exit(f"no Docker engine answers ({error}): run `make lab`, then `make e2e`", returncode=2)
    with leftovers.cleanup():
        yield


def _is_reachable(context: str) -> bool:
    """Return whether the cluster of a kubeconfig context answers."""
    try:
        kubeconfig.check(context)
    except RunError:
        return False
    return True


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    """Deploy the board on Docker once for all tests of a module.

    The tests run in file order, because each test builds on the changes of the earlier tests.
    """
    board = DockerStack(tmp_path_factory.mktemp("board"), "e2e")
    try:
        board.up()
        yield board
    finally:
        board.destroy(check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    return tmp_path


@pytest.fixture
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder with a short path, and remove the folder after the test.

    A Docker engine creates a Unix socket in the folder, and the path of a Unix socket may have at most 107 bytes.
    """
    folder = tmp_path_factory.mktemp("e")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
