"""Tests of the repair of the gateway's configuration.

The repair reads Pulumi's state only if the configuration is invalid. If the repair fails, the update goes on.
"""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import APIError, ContainerError, DockerException, NotFound
from docker.models.containers import Container

from ci import gateway
from components import platforms
from components.config import load_app, load_environment
from components.platforms.docker import client, gateway_repair
from components.release.checkpoint import Checkpoint

from .program import checkpoint_of, environment, first_release, project

APP = load_app({"name": "shop", "version": "1", "web": {"image": "x:1", "port": 8000}})
ENVIRONMENT = load_environment({"platform": "docker"}, APP)
INSPECTOR = platforms.inspector(APP, ENVIRONMENT, "dev")


def set_up_engine(monkeypatch: pytest.MonkeyPatch, container: Any, volumes: Any = None) -> None:
    def raise_not_found(_: str) -> None:
        raise NotFound("404: the container does not exist")

    get = raise_not_found if container is None else lambda _: container
    engine = SimpleNamespace(
        containers=SimpleNamespace(get=get), volumes=SimpleNamespace(get=volumes or raise_not_found)
    )
    monkeypatch.setattr(client, "connect", lambda *_, **__: engine)


def fail_on_reading_the_state() -> Checkpoint:
    raise AssertionError("the repair read the state")


def test_gateway_with_a_valid_configuration_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    running = SimpleNamespace(
        status="running", exec_run=lambda words: commands.append(words) or SimpleNamespace(exit_code=0)
    )
    set_up_engine(monkeypatch, running)
    monkeypatch.setattr(gateway_repair, "_file", lambda _: "a configuration")
    assert not INSPECTOR.repair_gateway(ENVIRONMENT, fail_on_reading_the_state)
    assert commands == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_missing_gateway_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_engine(monkeypatch, None)
    assert not INSPECTOR.repair_gateway(ENVIRONMENT, fail_on_reading_the_state)


def test_gateway_of_a_stack_without_a_live_slot_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    running = SimpleNamespace(status="running", exec_run=lambda _: SimpleNamespace(exit_code=1))
    set_up_engine(monkeypatch, running)
    assert not INSPECTOR.repair_gateway(ENVIRONMENT, Checkpoint)


def test_gateway_repair_checks_the_configuration_of_a_restarting_gateway_in_another_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: list[list[str]] = []

    def fail(_: object) -> None:
        raise APIError("409: the container is restarting")

    set_up_engine(monkeypatch, SimpleNamespace(status="running", exec_run=fail))
    engine = client.connect("")
    engine.containers.run = lambda _, command, **__: commands.append(command)
    assert not INSPECTOR.repair_gateway(ENVIRONMENT, fail_on_reading_the_state)
    assert commands == [["haproxy", "-c", "-f", "/var/lib/haproxy/haproxy.cfg"]]


def test_gateway_repair_writes_the_routes_of_the_live_slot_and_restarts_a_stopped_gateway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    restarts: list[str] = []

    def run(_: str, command: list[str], **__: object) -> None:
        commands.append(command)
        if command[0] == "haproxy":
            raise ContainerError(cast(Container, None), 1, command, "", "invalid")

    set_up_engine(monkeypatch, SimpleNamespace(status="exited", restart=lambda: restarts.append("gateway")))
    client.connect("").containers.run = run
    monkeypatch.setattr(gateway, "load", lambda _: (APP, ENVIRONMENT))
    monkeypatch.setattr(gateway, "state", lambda _: checkpoint_of(first_release()))
    gateway.main("dev")
    assert [command[3] for command in commands[1:]] == ["restore", "route", "route"]
    assert "web-blue" in commands[1][-1]
    assert commands[-1][-3:-1] == ["live", "blue"]
    assert restarts == ["gateway"]
    assert "rewrote the gateway's configuration of dev" in capsys.readouterr().out


def test_gateway_on_kubernetes_needs_no_repair() -> None:
    cluster = load_environment(environment("staging"), load_app(project()))
    inspector = platforms.inspector(APP, cluster, "staging")
    assert not inspector.repair_gateway(cluster, fail_on_reading_the_state)


def test_docker_failure_during_the_gateway_repair_is_reported_and_does_not_stop_the_update(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DockerException("the Docker engine does not answer")

    monkeypatch.setattr(client, "connect", fail)
    monkeypatch.setattr(gateway, "load", lambda _: (APP, ENVIRONMENT))
    gateway.main("dev")
    assert "could not be repaired: the Docker engine does not answer" in capsys.readouterr().err
