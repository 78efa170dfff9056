"""Tests of the repair of the gateway's configuration.

The repair reads Pulumi's state only if the configuration is invalid. If the repair fails, the update goes on.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, DockerException, NotFound

from ci import gateway
from components.config import load_app, load_environment
from components.platforms.docker import client
from components.release.checkpoint import Checkpoint

APP = load_app({"name": "shop", "version": "1", "web": {"image": "x:1", "port": 8000}})
ENVIRONMENT = load_environment({"platform": "docker"}, APP)


def set_up_engine(monkeypatch: pytest.MonkeyPatch, container: Any, volumes: Any = None) -> None:
    def raise_not_found(_: str) -> None:
        raise NotFound("absent")

    get = raise_not_found if container is None else lambda _: container
    engine = SimpleNamespace(
        containers=SimpleNamespace(get=get), volumes=SimpleNamespace(get=volumes or raise_not_found)
    )
    monkeypatch.setattr(client, "client", lambda *_, **__: engine)


def fail_on_reading_the_state() -> Checkpoint:
    raise AssertionError("the repair read the state")


def test_gateway_with_a_valid_configuration_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    running = SimpleNamespace(
        status="running", exec_run=lambda words: commands.append(words) or SimpleNamespace(exit_code=0)
    )
    set_up_engine(monkeypatch, running)
    monkeypatch.setattr(gateway, "_file", lambda _: "a configuration")
    assert not gateway.repair(APP, ENVIRONMENT, "dev", fail_on_reading_the_state)
    assert commands == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_missing_gateway_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_engine(monkeypatch, None)
    assert not gateway.repair(APP, ENVIRONMENT, "dev", fail_on_reading_the_state)


def test_gateway_of_a_stack_without_a_live_slot_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(status="running", exec_run=lambda _: SimpleNamespace(exit_code=1))
    set_up_engine(monkeypatch, running)
    assert not gateway.repair(APP, ENVIRONMENT, "dev", Checkpoint)


def test_gateway_repair_checks_the_configuration_of_a_restarting_gateway_in_another_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []

    def fail(_: object) -> None:
        raise APIError("409: is restarting")

    set_up_engine(monkeypatch, SimpleNamespace(status="running", exec_run=fail))
    engine = client.client(ENVIRONMENT)
    engine.containers.run = lambda _, command, **__: commands.append(command)
    assert not gateway.repair(APP, ENVIRONMENT, "dev", fail_on_reading_the_state)
    assert commands == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_docker_failure_during_the_gateway_repair_is_reported_and_does_not_stop_the_update(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DockerException("it is away")

    monkeypatch.setattr(client, "client", fail)
    monkeypatch.setattr(gateway, "load", lambda _: (APP, ENVIRONMENT))
    gateway.main("dev")
    assert "could not be repaired: it is away" in capsys.readouterr().err
