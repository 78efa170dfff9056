"""Tests of the wheel, which contains the package `tiers`, the files that this package reads, and metadata."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components import backup, build_context

from .program import ROOT

IMPORT_ALL = """
import json, pkgutil, sys, tiers
names = [module.name for module in pkgutil.walk_packages(tiers.__path__, "tiers.")]
for name in names:
    __import__(name)
from tiers import backup, build_context
foreign = [name for name in sys.modules if name.partition(".")[0] in ("components", "ci", "policy")]
print(json.dumps({"file": tiers.__file__, "names": names, "foreign": foreign, "context": build_context.digest(backup.image_context())}))
"""


@pytest.fixture(scope="module")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, unpack it into a folder, and return the folder."""
    pytest.importorskip("hatchling", reason="run `make venv`: hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def metadata(site_folder: Path) -> Message:
    (file,) = site_folder.glob("*.dist-info/METADATA")
    return Parser().parsestr(file.read_text())


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_wheel_contains_an_identical_copy_of_every_file_of_the_library(site_folder: Path) -> None:
    context_files = {f"images/backup/{name}": text for name, text in content(ROOT / "images/backup").items()}
    assert content(site_folder / "tiers") == content(ROOT / "components") | context_files
    assert {"py.typed", "sentinel.sh", "platforms/toolbox.py"} <= content(site_folder / "tiers").keys()


def test_every_module_of_the_wheel_can_be_imported_from_tiers(site_folder: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site_folder)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    modules: dict[str, Any] = json.loads(result.stdout)
    assert Path(modules["file"]) == site_folder / "tiers/__init__.py"
    assert "tiers.platforms.kubernetes" in modules["names"]
    assert modules["foreign"] == []
    assert modules["context"] == build_context.digest(backup.image_context())


def test_example_program_that_uses_only_the_wheel_passes_its_tests(site_folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "own_program"
    shutil.copytree(ROOT / "examples/own_program", program)
    assert len((program / "__main__.py").read_text().splitlines()) <= 60
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(program), "tests"],
        cwd=program, env={**os.environ, "PYTHONPATH": str(site_folder)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_metadata_of_the_wheel_has_license_authors_and_python_version(metadata: Message) -> None:
    assert metadata["Name"] == "tiers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The Tiers authors"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_pinned_package_versions_are_in_the_ranges_that_the_library_requires() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/requirements.txt").read_text(), re.MULTILINE))
    ranges = [Requirement(text) for text in _project()["dependencies"]]
    for requirement in ranges:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_library_requires_the_same_packages_as_the_program_except_the_policy_package() -> None:
    lines = (ROOT / "requirements/requirements.in").read_text().splitlines()
    program = {canonicalize_name(Requirement(line).name) for line in lines}
    library = {canonicalize_name(Requirement(text).name) for text in _project()["dependencies"]}
    assert program - library == {"pulumi-policy"}
    assert library <= program


def test_pulumi_install_installs_the_pinned_packages() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-r requirements/requirements.txt"]


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
