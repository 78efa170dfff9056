"""Tests of `make logs`, `make exec` and `make console`."""

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import RunError

from ci import container, logs, slo
from components.config import load_app, load_environment
from components.platforms import Line
from components.platforms.base import Location
from components.platforms.docker.inspect import DockerInspector
from components.platforms.kubernetes import pod_exec
from components.platforms.kubernetes.inspect import KubernetesInspector
from components.release.planner import Slot

from .program import checkpoint_of, environment, first_release, project, with_whole_urns


def line(second: int, tier: str = "api", slot: str = "blue", text: str = "text") -> Line:
    return Line(f"2026-11-30T12:00:{second:02}.000000000Z", tier, slot, "1.0.0-abc", text)


class TestNewLines:
    def test_log_lines_of_all_containers_are_sorted_by_time(self) -> None:
        read = iter([line(3), line(1, "web"), line(2, "database", "")])
        assert [entry.tier for entry in logs.new_lines(lambda _: read, 0, follows=False)] == ["web", "database", "api"]

    def test_followed_log_lines_are_printed_once_although_consecutive_reads_overlap(self) -> None:
        reads = iter([[line(1), line(2)], [line(2), line(3)], [line(2), line(3), line(4)], [line(4), line(5)]])
        pauses: list[float] = []
        followed = logs.new_lines(lambda _: iter(next(reads)), 0, follows=True, pause=pauses.append)
        assert list(islice(followed, 5)) == [line(1), line(2), line(3), line(4), line(5)]
        assert pauses == [logs.PAUSE] * 3

    def test_each_read_of_a_followed_log_overlaps_the_previous_read_by_a_short_time(self) -> None:
        begins: list[float] = []

        def read(begin: float) -> Iterator[Line]:
            begins.append(begin)
            return iter([line(len(begins))])

        list(islice(logs.new_lines(read, 5.0, follows=True, pause=lambda _: None), 3))
        assert begins[0] == 5.0
        assert 0 <= begins[2] - begins[1] < 1 and begins[1] > 10**9


@pytest.mark.parametrize(("text", "seconds"), [("", 600), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_maximum_age_of_log_lines_is_converted_to_seconds(text: str, seconds: float) -> None:
    assert logs.parse_age(text) == seconds


def test_age_of_logs_without_a_time_unit_is_refused() -> None:
    with pytest.raises(RunError, match=r"SINCE: '10' is not an age; write it like 30s"):
        logs.parse_age("10")


def test_slot_names_live_and_idle_are_converted_to_blue_or_green() -> None:
    assert [logs.parse_slot(name, Slot.BLUE) for name in ("", "live", "idle", "green")] == [
        None,
        "blue",
        "green",
        "green",
    ]
    with pytest.raises(RunError, match="SLOT: no slot is live"):
        logs.parse_slot("idle", None)


def test_log_lines_of_each_service_have_a_distinct_colour_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    services = ["api", "worker"]
    for is_coloured in (True, False):
        print_line = logs.printer(services, is_coloured=is_coloured)
        print_line(line(1, "api"))
        print_line(line(2, "worker"))
    coloured = capsys.readouterr().out.splitlines()
    assert coloured[0].startswith("12:00:01.000 \x1b[36mapi    blue \x1b[0m") and "\x1b[32mworker" in coloured[1]
    assert coloured[2] == "12:00:01.000 api    blue  text"


def test_make_smoke_with_a_slot_other_than_idle_is_refused() -> None:
    with pytest.raises(
        RunError, match="SLOT: `make smoke` can't check the slot blue; set SLOT to idle, or remove SLOT"
    ):
        slo.smoke("dev", "blue")


@pytest.fixture
def deployed_dev(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Mock a deployed stack with lines of both slots, and return the command lines that `process.exec_command` gets."""
    state = with_whole_urns(checkpoint_of(first_release("dev")))
    app = load_app(project() | {"worker": project()["worker"] | {"console": ["python", "-m", "board.shell"]}})
    lines = [line(1, "api"), line(2, "api", "green"), line(3, "database", ""), line(4, "gateway", "")]
    inspector = SimpleNamespace(
        log_lines=lambda since=0: iter(lines),
        command_in=lambda tier, slot, words, terminal: [tier, str(slot), *words, str(terminal)],
    )
    commands: list[list[str]] = []
    monkeypatch.setattr(logs, "state", lambda stack: state)
    monkeypatch.setattr(container, "state", lambda stack: state)
    monkeypatch.setattr(container, "load", lambda stack: (app, load_environment(environment("dev"), app)))
    monkeypatch.setattr(logs.platforms, "inspector_at", lambda location: inspector)
    monkeypatch.setattr(container.platforms, "inspector", lambda *where: inspector)
    monkeypatch.setattr(container.process, "exec_command", commands.append)
    monkeypatch.setattr(container.command_journal, "record", lambda stack, entry: None)
    return commands


@pytest.mark.usefixtures("deployed_dev")
class TestLogs:
    def shown(self, capsys: pytest.CaptureFixture[str], **options: str) -> list[str]:
        logs.main("dev", follow="no", **options)
        return [" ".join(text.split()[1:3]) for text in capsys.readouterr().out.splitlines()]

    def test_make_logs_prints_the_lines_of_all_services_and_slots(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.shown(capsys) == ["api blue", "api green", "database text", "gateway text"]

    def test_make_logs_prints_only_the_lines_of_the_selected_service_and_slot(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.shown(capsys, service="api") == ["api blue", "api green"]
        assert self.shown(capsys, slot="live") == ["api blue"]
        assert self.shown(capsys, service="api", slot="idle") == ["api green"]

    def test_make_logs_refuses_an_unknown_service_and_lists_the_services_of_the_stack(self) -> None:
        with pytest.raises(
            RunError, match="SERVICE: dev has no service mailer; use one of api, cache, database, gateway,"
        ):
            logs.main("dev", service="mailer")


class TestCommands:
    def test_make_exec_splits_a_command_without_a_shell(self, deployed_dev: list[list[str]]) -> None:
        container.execute("dev", "api", "echo '$HOME; ls' \"a b\"")
        assert deployed_dev == [["api", "blue", "echo", "$HOME; ls", "a b", "False"]]

    def test_make_exec_selects_the_container_of_a_shared_service_without_a_slot(
        self, deployed_dev: list[list[str]]
    ) -> None:
        container.execute("dev", "database", "date")
        assert deployed_dev == [["database", "None", "date", "False"]]

    def test_make_exec_with_slot_idle_runs_the_command_in_the_idle_slot(self, deployed_dev: list[list[str]]) -> None:
        container.execute("dev", "api", "date", "idle")
        assert deployed_dev[0][:2] == ["api", "green"]

    def test_make_console_starts_the_expected_console_for_each_service(self, deployed_dev: list[list[str]]) -> None:
        for service in ("worker", "database", "api", "cache"):
            container.console("dev", service)
        assert [words[2:-1] for words in deployed_dev] == [
            ["python", "-m", "board.shell"],
            ["psql", "--username", "board", "--dbname", "board"],
            ["sh"],
            ["sh"],
        ]

    @pytest.mark.usefixtures("deployed_dev")
    @pytest.mark.parametrize(
        ("service", "command", "message"),
        [
            ("", "date", r"SERVICE: the application has no service ''; use one of api,"),
            ("mailer", "date", r"SERVICE: the application has no service 'mailer'"),
            ("api", "", "CMD is missing"),
            ("api", "echo 'x", "CMD: No closing quotation; close the quotation mark"),
        ],
    )
    def test_make_exec_without_a_valid_service_and_command_is_refused(
        self, service: str, command: str, message: str
    ) -> None:
        with pytest.raises(RunError, match=message):
            container.execute("dev", service, command)


def test_command_line_for_docker_exec_contains_the_engine_and_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = DockerInspector(location=Location(app="board", stack="dev", host="unix:///run/e.sock"))
    running: Any = [SimpleNamespace(name="board-dev-blue-api-1", attrs={"Config": {"Entrypoint": None}})]
    monkeypatch.setattr(DockerInspector, "_running", lambda *_, within: running)
    words = inspector.command_in("api", Slot.BLUE, ["a b", "--x"], terminal=False)
    assert words == [
        "docker",
        "--host",
        "unix:///run/e.sock",
        "exec",
        "--interactive",
        "board-dev-blue-api-1",
        "a b",
        "--x",
    ]
    assert inspector.command_in("api", Slot.BLUE, ["sh"], terminal=True)[4:6] == ["--interactive", "--tty"]


def test_command_line_for_kubectl_exec_contains_context_and_namespace_and_pod_and_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inspector = KubernetesInspector(location=Location(app="board", stack="prod", context="lab", namespace="board-prod"))
    selectors: list[pod_exec.PodSelector] = []
    monkeypatch.setattr(pod_exec, "find", lambda selector: selectors.append(selector) or ("api-blue-x", "api"))
    words = inspector.command_in("api", Slot.BLUE, ["a b", "--x"], terminal=False)
    where = ["--context", "lab", "--namespace", "board-prod", "exec", "--stdin"]
    assert words == ["kubectl", *where, "api-blue-x", "--container", "api", "--", "a b", "--x"]
    assert selectors[0].labels == {"app.kubernetes.io/component": "api", "tiers.slot": "blue"}
