"""The engines of the end-to-end run. A missing one is an error, never a skipped test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from .stack import Stack


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Pulumi and an engine are there."""
    if not shutil.which("pulumi"):
        pytest.exit("no `pulumi` on PATH: run `make lab`, then `make e2e`", returncode=2)
    try:
        docker.from_env().ping()
    except DockerException as error:
        pytest.exit(f"no Docker engine answers ({error}): run `make lab`, then `make e2e`", returncode=2)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The board, deployed once for the tests of a module, which run in their order."""
    made = Stack(tmp_path_factory.mktemp("board"), "e2e")
    try:
        made.up()
        yield made
    finally:
        made.destroy(check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
