"""Tests of `make trace`, which prints the log lines of one request, from all services, sorted by time."""

import json
from types import SimpleNamespace

import pytest
from pulumi import RunError

from ci import trace
from components.platforms import Line
from components.platforms.docker import haproxy

AT = "2026-11-21T21:00:0{}.123456789Z"
GATEWAY = Line(
    AT.format(3), "gateway", "", "", json.dumps({"request_id": "mine-1", "path": "/", "slot": "blue", "status": 200})
)
API = Line(
    AT.format(1), "api", "blue", "1.0.0-a", json.dumps({"request_id": "mine-1", "message": "request", "seconds": 0.1})
)
DATABASE = Line(AT.format(2), "database", "", "", "STATEMENT:  /* request mine-1 */ SELECT 1")
OTHER_LINES = [
    Line(AT.format(0), "api", "blue", "1.0.0-a", json.dumps({"request_id": "mine-12", "message": "request"})),
    Line(AT.format(0), "api", "blue", "1.0.0-a", json.dumps({"request_id": "other", "message": "not of mine-1"})),
    Line(AT.format(0), "cache", "", "", "Ready to accept connections"),
    Line(AT.format(0), "worker", "blue", "1.0.0-a", "{ no JSON"),
]


def test_make_trace_finds_the_log_lines_of_a_request() -> None:
    assert list(trace.lines_of_request("mine-1", [*OTHER_LINES, GATEWAY, DATABASE, API])) == [GATEWAY, DATABASE, API]


def test_make_trace_prints_log_lines_sorted_by_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace, "load", lambda stack: (None, None))
    monkeypatch.setattr(
        trace.platforms,
        "inspector",
        lambda *where: SimpleNamespace(log_lines=lambda: iter([*OTHER_LINES, GATEWAY, DATABASE, API])),
    )
    trace.main("dev", "mine-1")
    assert capsys.readouterr().out.splitlines() == [
        "21:00:01.123  api       blue   1.0.0-a              request seconds=0.1",
        "21:00:02.123  database                              STATEMENT:  /* request mine-1 */ SELECT 1",
        "21:00:03.123  gateway   blue                        / 200",
    ]


@pytest.mark.parametrize(
    ("request_id", "message"), [("", "ID is missing"), ("nobody", "no log line of stack dev has the id nobody")]
)
def test_make_trace_of_a_request_without_log_lines_is_refused(
    request_id: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "load", lambda stack: (None, None))
    monkeypatch.setattr(
        trace.platforms, "inspector", lambda *where: SimpleNamespace(log_lines=lambda: iter(OTHER_LINES))
    )
    with pytest.raises(RunError, match=message):
        trace.main("dev", request_id)


def test_log_line_of_the_gateway_contains_release_and_path_but_not_the_query() -> None:
    assert set(json.loads(_with_values(haproxy.LOG))) >= {"request_id", "path", "status", "slot", "release"}
    assert "%HU" not in haproxy.LOG and "query" not in haproxy.LOG


def _with_values(form: str) -> str:
    """Return the log format with each variable replaced by 1."""
    import re

    return re.sub(r"%(\[[^\]]*\]|b/%s|[A-Za-z]+)", "1", form)
