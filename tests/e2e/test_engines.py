"""Tests of a Docker engine at a configured socket, of an engine with a full disk, and of updates that are refused before any change."""

import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .engines import run, run_engine
from .stack import ROOT, DockerStack


@pytest.mark.long
def test_stack_is_deployed_to_an_engine_at_another_socket(short_folder: Path, tmp_path: Path) -> None:
    with run_engine(short_folder, 1) as host:
        stack = DockerStack(tmp_path / "board", "e2e-second", host)
        try:
            stack.up()
            assert stack.get("/api/release").json()["slot"] == "blue"
            assert len(stack.containers()) >= 10
            assert set(stack.up().changes) == {"unchanged"}
        finally:
            stack.destroy(check=False)
        assert stack.leftovers() == []
        stack.engine.close()


def test_full_disk_during_a_build_is_reported(short_folder: Path, tmp_path: Path) -> None:
    data_folder = short_folder / "root"
    data_folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(data_folder))
    try:
        with run_engine(short_folder, 2) as host:
            # Name the engine by DOCKER_HOST, because the test above already names its engine by environment.docker.host.
            stack = DockerStack(tmp_path / "board", "e2e-full", host)
            del stack.environment["docker"]
            stack.variables["DOCKER_HOST"] = host
            failed = stack.up(check=False)
            assert failed.code
            assert "no space left on device" in failed.text
            assert "the engine's disk is full: free space with `docker system prune`" in failed.text
            stack.destroy()
            # Only volumes may remain. If the creation of a volume failed, the volume is empty and not in the state, so `destroy` does
            # not remove it.
            remaining_volumes = {str(volume.name) for volume in stack.engine.volumes.list()}
            assert set(stack.leftovers()) <= remaining_volumes
            stack.engine.close()
    finally:
        run("umount", "-l", str(data_folder))


@pytest.fixture(scope="module")
def undeployed(tmp_path_factory: pytest.TempPathFactory) -> DockerStack:
    """Create a stack for updates that must be refused. The stack is never deployed."""
    return DockerStack(tmp_path_factory.mktemp("idle") / "board", "e2e-idle")


def refused_update(stack: DockerStack) -> str:
    """Run an update that must be refused, check that no object exists, and return the output of the update."""
    result = stack.up(check=False)
    assert result.code
    assert "Traceback" not in result.text
    assert stack.leftovers() == []
    return result.text


def test_update_without_a_reachable_engine_is_refused(undeployed: DockerStack) -> None:
    undeployed.environment["docker"] = {"host": "unix:///nowhere/docker.sock"}
    try:
        assert "environment.docker.host: no Docker engine answers at unix:///nowhere/docker.sock" in refused_update(
            undeployed
        )
    finally:
        del undeployed.environment["docker"]


def test_gateway_port_in_use_is_refused(undeployed: DockerStack) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", undeployed.environment["gateway"]["port"]))
        server.listen()
        assert (
            f"environment.gateway.port: port {undeployed.environment['gateway']['port']} can't be opened"
            in refused_update(undeployed)
        )


def test_all_configuration_errors_are_reported_before_any_object_is_created(undeployed: DockerStack) -> None:
    undeployed.app["api"] |= {"port": 70000}
    undeployed.app["web"] |= {"prot": 1}
    try:
        text = refused_update(undeployed)
        assert "app.api.port: 70000 is not a port; use a whole number from 1 to 65535" in text
        assert "app.web.prot: there is no such key" in text
    finally:
        undeployed.app["api"]["port"] = 8000
        del undeployed.app["web"]["prot"]


def test_missing_secret_is_refused_with_the_command_that_sets_it(undeployed: DockerStack) -> None:
    undeployed.app["api"]["secrets"] = ["mail-password"]
    try:
        text = refused_update(undeployed)
        assert "secrets.mail-password: app.api.secrets uses this secret" in text
        assert "pulumi config set --secret --path secrets.mail-password" in text
    finally:
        del undeployed.app["api"]["secrets"]


def test_second_make_command_on_a_locked_stack_is_refused(tmp_path: Path) -> None:
    state = Path.home() / ".local/state/tiers"
    state.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(["flock", str(state / "lonely.lock"), "sleep", "20"])
    try:
        threading.Event().wait(0.5)
        started = time.monotonic()
        second_make = subprocess.run(
            ["make", "down", "ENV=lonely"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert second_make.returncode
        assert "another make command uses stack lonely in this folder" in second_make.stderr
        assert time.monotonic() - started < 15
    finally:
        holder.terminate()
        holder.wait()
