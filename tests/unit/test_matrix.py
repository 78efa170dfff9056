"""Tests of the page that `ci.matrix` generates. For each example the page shows the last result of each test, or "not run"."""

from collections.abc import Mapping
from typing import Any

from ci import matrix


def cell(fields: Mapping[str, object] = {}, *, passed: bool = True) -> dict[str, Any]:
    return {"passed": passed, "seconds": 1.0, "commit": "abc1234", "at": "2026-01-31 12:00", **fields}


RESULTS = {
    "pmanager-docker up_from_empty": cell({"first page": 12.3}),
    "pmanager-docker hot_reload_in_dev_only": cell({"edit of web": 0.4, "edit of api": 1.9}),
    "pmanager-docker journey": cell(passed=False),
    "pmanager-docker release_under_load": cell({"requests": 690, "images": {"web": 94_000_000, "api": 190_400_000}}),
    "pmanager from_clone_to_first_page": cell({"first page": 81.0, "bases": {"redis:7-bookworm": 89_200_000}}),
}


def row(text: str, start: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(start)]
    return [part.strip() for part in line.strip("|").split("|")]


def test_table_of_examples_shows_every_result_and_marks_tests_that_did_not_run() -> None:
    text = matrix.page(RESULTS, [])
    fields = dict(zip(row(text, "| system | platform"), row(text, "| pmanager | Docker"), strict=True))
    assert fields["up from empty"] == "yes, 12 s"
    assert fields["hot reload"] == "yes, 1.9 s"
    assert fields["journey"] == "**failed**"
    assert fields["release under load"] == "yes, 690 requests"
    assert fields["destroy"] == "not run"
    assert fields["measured at"] == "abc1234; 2026-01-31"
    assert row(text, "| pmanager | Kubernetes")[-1] == "never"


def test_table_of_examples_lists_measured_and_expected_image_sizes() -> None:
    text = matrix.page(RESULTS, ["pmanager"])
    assert row(text, "| pmanager | api") == ["pmanager", "api", "190", "180 to 250"]
    assert "redis:7-bookworm 89" in text
    assert row(text, "| pmanager | 81 s") == ["pmanager", "81 s", "abc1234; 2026-01-31"]
    assert "(../docs/screenshots/pmanager.png)" in text
