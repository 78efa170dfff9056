"""Repair of the gateway's configuration: it reads the state only if a repair is needed, and its own failure stops no update."""

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, DockerException, NotFound

from ci import gateway
from components.checkpoint import Checkpoint
from components.config import load_app, load_environment
from components.platforms import engine

APP = load_app({"name": "shop", "version": "1", "web": {"image": "x:1", "port": 8000}})
ENVIRONMENT = load_environment({"platform": "docker"}, APP)


def engine_with(monkeypatch: pytest.MonkeyPatch, container: Any, volumes: Any = None) -> None:
    def absent(_: str) -> None:
        raise NotFound("absent")

    get = absent if container is None else lambda _: container
    here = SimpleNamespace(containers=SimpleNamespace(get=get), volumes=SimpleNamespace(get=volumes or absent))
    monkeypatch.setattr(engine, "client", lambda *_, **__: here)


def unread() -> Checkpoint:
    raise AssertionError("the state is read")


def test_gateway_that_can_start_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    running = SimpleNamespace(
        status="running", exec_run=lambda words: commands.append(words) or SimpleNamespace(exit_code=0)
    )
    engine_with(monkeypatch, running)
    monkeypatch.setattr(gateway, "_file", lambda _: "a configuration")
    assert not gateway.mend(APP, ENVIRONMENT, "dev", unread)
    assert commands == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_first_deployment_has_nothing_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_with(monkeypatch, None)
    assert not gateway.mend(APP, ENVIRONMENT, "dev", unread)


def test_gateway_of_a_stack_without_a_live_slot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(status="running", exec_run=lambda _: SimpleNamespace(exit_code=1))
    engine_with(monkeypatch, running)
    assert not gateway.mend(APP, ENVIRONMENT, "dev", Checkpoint)


def test_gateway_that_restarts_during_the_check_is_checked_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def fail(_: object) -> None:
        raise APIError("409: is restarting")

    engine_with(monkeypatch, SimpleNamespace(status="running", exec_run=fail))
    here = engine.client(ENVIRONMENT)
    here.containers.run = lambda _, command, **__: ran.append(command)
    assert not gateway.mend(APP, ENVIRONMENT, "dev", unread)
    assert ran == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_engine_that_fails_is_reported_and_stops_no_update(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DockerException("it is away")

    monkeypatch.setattr(engine, "client", fail)
    monkeypatch.setattr(gateway, "load", lambda _: (APP, ENVIRONMENT))
    gateway.main("dev")
    assert "could not be repaired: it is away" in capsys.readouterr().err
