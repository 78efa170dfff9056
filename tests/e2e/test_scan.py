"""Scans for secrets, known vulnerabilities and contents, by programs that take long to build: with --soak only."""

import json
import subprocess
from pathlib import Path

from .test_pipeline import Pipeline


def test_removed_secret_is_found_in_history(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "pipeline-scan", "staging")
    for text in (f"key = {'AKIA'}{'Q3EGRIZ7TXPL5WVB'}", "nothing"):
        (pipeline.folder / "settings.py").write_text(f"{text}\n")
        for words in (["init"], ["add", "settings.py"], ["commit", "--message", text[:7]]):
            git = ["git", "-c", "user.name=e2e", "-c", "user.email=e2e@example.com", *words]
            subprocess.run(git, cwd=pipeline.folder, check=True, capture_output=True)
    scan = pipeline.make("scan", check=False)
    assert scan.code
    assert "leaks found: 1" in scan.text


def test_audit_without_advisories_fails(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "pipeline-audit", "staging")
    nobody = "http://127.0.0.1:9"
    done = pipeline.make(
        "audit", check=False, HTTPS_PROXY=nobody, HTTP_PROXY=nobody, TRIVY_CACHE_DIR=str(tmp_path / "cache")
    )
    assert done.code
    assert "failed to download vulnerability DB" in done.text


def test_contents_of_an_image_are_written_to_an_sbom(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "pipeline-parts", "staging")
    pipeline.make("images", "PIN=yes")
    pipeline.make("sbom")
    built = json.loads(pipeline.make("--silent", "built").text.partition("=")[2])
    assert [entry["name"].rpartition("/")[2] for entry in built] == ["board-web", "board-api"]
    pinned = pipeline.settings.read_text()
    for entry in built:
        parts = json.loads((pipeline.folder / entry["sbom"]).read_text())["components"]
        assert {"nginx", "fastapi"} & {part["name"] for part in parts}
        assert entry["digest"] in pinned
