"""Recorder that writes the results of test_examples.py to reports/examples.json.

ci/matrix.py generates examples/README.md from reports/examples.json.
"""

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from .stack import ROOT

FILE = ROOT / "reports" / "examples.json"
MODULE = "test_examples.py"


class ResultRecorder:
    """Pytest plugin that records the result of each check with its application, its platform and the commit.

    A run of pytest replaces the results of its own checks. The file keeps all other results.
    """

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        changed_files = _git("status", "--porcelain", "--untracked-files=no")
        self.commit = _git("rev-parse", "--short", "HEAD") + (" and changes" if changed_files else "")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report: pytest.TestReport = yield
        if item.path.name == MODULE and (report.when == "call" or report.failed):
            check, _, case = item.name.rstrip("]").partition("[")
            self.cells[f"{case} {check.removeprefix('test_')}"] = {
                "passed": report.passed,
                "seconds": round(report.duration, 1),
                "commit": self.commit,
                "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
                **dict(report.user_properties),
            }
        return report

    def pytest_sessionfinish(self) -> None:
        if self.cells:
            cells = json.loads(FILE.read_text()) if FILE.exists() else {}
            FILE.parent.mkdir(exist_ok=True)
            FILE.write_text(json.dumps(cells | self.cells, indent=1, sort_keys=True) + "\n")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
