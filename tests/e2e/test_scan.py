"""Tests of the scans for secrets and vulnerabilities, and of SBOMs. An SBOM lists the contents of an image.

The tests run only with --soak, because building the scanners takes long.
"""

import json
import subprocess
from pathlib import Path

from .test_pipeline import Pipeline


def test_secret_removed_from_a_file_is_found_in_git_history(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "e2e-pipeline-scan", "staging")
    for text in (f"key = {'AKIA'}{'Q3EGRIZ7TXPL5WVB'}", "nothing"):
        (pipeline.folder / "settings.py").write_text(f"{text}\n")
        for words in (["init"], ["add", "settings.py"], ["commit", "--message", text[:7]]):
            git = ["git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.com", *words]
            subprocess.run(git, cwd=pipeline.folder, check=True, capture_output=True)
    scan = pipeline.make("scan", check=False)
    assert scan.code
    assert "leaks found: 1" in scan.text


def test_audit_fails_if_advisories_cannot_be_downloaded(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "e2e-pipeline-audit", "staging")
    closed_port = "http://127.0.0.1:9"
    process = pipeline.make(
        "audit", check=False, HTTPS_PROXY=closed_port, HTTP_PROXY=closed_port, TRIVY_CACHE_DIR=str(tmp_path / "cache")
    )
    assert process.code
    assert "failed to download vulnerability DB" in process.text


def test_contents_of_an_image_are_written_to_an_sbom(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "e2e-pipeline-parts", "staging")
    pipeline.make("images", "PIN=yes")
    pipeline.make("sbom")
    built_images = json.loads(pipeline.make("--silent", "built").text.partition("=")[2])
    assert [entry["name"].rpartition("/")[2] for entry in built_images] == ["board-web", "board-api"]
    stack_file = pipeline.settings.read_text()
    for entry in built_images:
        components = json.loads((pipeline.folder / entry["sbom"]).read_text())["components"]
        assert {"nginx", "fastapi"} & {component["name"] for component in components}
        assert entry["digest"] in stack_file
