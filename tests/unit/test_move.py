"""Tests of `make move`, which copies a single-instance database into a database cluster.

The tests also check that tiers use the database that the stack file names, and that data is deleted only if TIERS_FORCE is set.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from pulumi import RunError

from ci import move, new_database
from components.config import ConfigError, load_app, load_environment
from components.platforms.kubernetes import pod_exec
from components.platforms.kubernetes.inspect import KubernetesInspector
from components.platforms.kubernetes.pod_exec import PodSelector
from components.release.checkpoint import parse
from components.safety.guard import deployed_major, stored_data

from .program import ROOT, SECRETS, Deployment, checkpoint_of, deploy, environment, first_release, project
from .test_kubernetes import ALL
from .test_reachability import Network
from .test_replicated import configuration_error

DURING_MOVE = ALL["migration"]
ALL_SECRETS = SECRETS | {"backup-key": "the-key-of-backups"}
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"


def deploy_during_move(single: str | None, before: Deployment, **more: Any) -> Deployment:
    return deploy(
        env=environment_during_move(single, **more), stack="staging", export=checkpoint_of(before), secrets=ALL_SECRETS
    )


def environment_during_move(single: str | None, **more: Any) -> dict[str, Any]:
    env = environment("staging")
    env["tiers"]["database"] |= {"ha": True, "backup": {"target": {"volume": True}}, **more}
    env["tiers"]["database"] |= {"single": single} if single else {}
    return env


def variables_of(deployment: Deployment, kind: str, name: str) -> dict[str, str]:
    spec = deployment.get_object(kind, name).inputs["spec"]["template"]["spec"]
    return {variable["name"]: variable.get("value", "") for variable in spec["containers"][0]["env"]}


def test_single_instance_database_is_unchanged_when_the_database_cluster_is_added() -> None:
    before, after = first_release("staging"), deploy_during_move("live", first_release("staging"))
    for kind, name in (("StatefulSet", "database"), (CLAIM, "database-data"), ("Service", "database")):
        assert (after.get_object(kind, name).urn, after.get_object(kind, name).inputs) == (
            before.get_object(kind, name).urn,
            before.get_object(kind, name).inputs,
        )
    assert after.get_object("Cluster", "database-ha") and after.get_object("Pooler", "database-pooler")
    # Adding the cluster deploys no release, so the slots and the switch do not change.
    assert {entry.ignores for entry in after.of_type("Deployment") if entry.name == "api-blue"} == {("*",)}
    assert "green" not in {entry.labels.get("tiers.slot") for entry in after}
    assert set(stored_data(parse(checkpoint_of(after)))) >= {"database-data", "database-ha"}


@pytest.mark.parametrize(
    ("single", "hosts"),
    [
        ("live", ("database", "database", "database")),
        ("kept", ("database-pooler", "database-ha-rw", "database-ha-ro")),
        (None, ("database-pooler", "database-ha-rw", "database-ha-ro")),
    ],
)
def test_tiers_and_backups_use_the_configured_database(single: str | None, hosts: tuple[str, ...]) -> None:
    deployment = deploy(env=environment_during_move(single), stack="staging", secrets=ALL_SECRETS)
    for kind, name in (("Deployment", "api-blue"), ("StatefulSet", "backup")):
        variables = variables_of(deployment, kind, name)
        assert tuple(variables[f"DATABASE_{way}HOST"] for way in ("", "DIRECT_", "READ_")) == hosts
    assert variables_of(deployment, "Job", "blue-api-migrate")["DATABASE_HOST"] == hosts[1]


def test_move_to_the_database_cluster_deploys_a_new_release_and_keeps_the_single_instance_database() -> None:
    deployment = deploy_during_move("kept", DURING_MOVE, name="board_r20261121_233000")
    assert deployment.release and deployment.release != DURING_MOVE.release
    assert variables_of(deployment, "Deployment", "api-green")["DATABASE_NAME"] == "board_r20261121_233000"
    assert (
        deployment.get_object("StatefulSet", "database").inputs
        == DURING_MOVE.get_object("StatefulSet", "database").inputs
    )


def test_single_instance_database_is_removed_only_with_force(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (first_release("staging"), DURING_MOVE, deploy_during_move("kept", DURING_MOVE)):
        with pytest.raises(
            ConfigError, match=r"tiers\.database\.single: .*board-staging/database-data would be deleted.*make move"
        ):
            deploy_during_move(None, before)
    monkeypatch.setenv("TIERS_FORCE", "data")
    assert CLAIM not in {entry.type for entry in deploy_during_move(None, DURING_MOVE) if entry.name == "database-data"}


def test_move_reads_the_postgresql_major_version_from_the_single_instance() -> None:
    state_resources = checkpoint_of(DURING_MOVE)["deployment"]["resources"]
    clusters = [entry for entry in state_resources if entry["type"].endswith(":Cluster")]
    # The result must not depend on the order of resources in the state.
    for resources in (state_resources, [*clusters, *state_resources]):
        assert deployed_major(parse({"deployment": {"resources": resources}})) == 15


def test_backup_pod_reaches_the_single_instance_database_and_the_database_cluster() -> None:
    network = Network(DURING_MOVE)
    backup_pod, instance = network.pods["backup"], network.pods["database-ha-1"]
    assert network.reaches(backup_pod, network.pods["database"], 5432)
    assert network.reaches(backup_pod, instance, 5432)
    assert not network.reaches(network.pods["database"], instance, 5432)


def test_setting_single_is_refused_unless_a_database_moves_to_a_cluster() -> None:
    assert (
        "environment.tiers.database.single: `single` is only for the migration to a database cluster"
        in configuration_error({"single": "live"})
    )
    assert "environment.tiers.database.single: it has no effect on Docker" in configuration_error(
        {"single": "live"}, "dev"
    )
    env = environment("staging")
    env["tiers"]["cache"] = {"ha": True, "single": "kept"}
    with pytest.raises(ConfigError, match=r"tiers\.cache\.single: `single` is only for the migration"):
        load_environment(env, load_app(project()))
    images = {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in ("web", "api", "worker", "database", "cache")}
    assert "app.database.image: " in configuration_error({"ha": True, "single": "live"}, pinned=True, images=images)


# ---------------------------------------------------------------------- make move


class Server:
    """Mock of a stack with a single-instance database. The mock answers queries and records the steps of the move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, env: dict[str, Any], deployment: Deployment) -> None:
        self.calls: list[str] = []
        self.failing_step, self.rows_written = "", 0
        self.name, self.copies = "board", ()
        monkeypatch.setattr(move, "load", lambda _: (load_app(project()), load_environment(env, load_app(project()))))
        monkeypatch.setattr(move, "state", lambda _: checkpoint_of(deployment))
        monkeypatch.setattr(new_database, "project", lambda: "board")
        monkeypatch.setattr(pod_exec, "execute", self.query)
        monkeypatch.setattr(KubernetesInspector, "run_once", self.copy_database)
        monkeypatch.setattr(new_database, "pulumi", self.pulumi)
        monkeypatch.setattr(KubernetesInspector, "pool_database", lambda *_: self._record("introduce"))
        monkeypatch.setattr(move.time, "sleep", lambda _: None)

    def _record(self, step: str) -> None:
        self.calls.append(step)
        if self.failing_step and self.failing_step in step:
            raise RunError(f"{step} fails")

    def query(self, selector: PodSelector, command: Sequence[str]) -> str:
        assert selector.labels == {
            "app.kubernetes.io/name": "database"
        }  # Only the pod of the single-instance database has this label.
        query = next(word for word in command if word.startswith(("ALTER", "SELECT")))
        if query.startswith("ALTER"):
            self._record("open" if "RESET" in query else "close")
            return "WARNING:  something\n2026-11-21 23:30:00+00"
        if "n_tup_ins" in query:
            assert self.name in command
            return str(7 + self.rows_written * ("copy" in self.calls))
        ended = sum(entry == "ended" for entry in self.calls) % 3 == 0
        self.calls.append("ended")
        return "4" if ended else "0"

    def copy_database(self, *words: Any) -> str:
        self._record("copy")
        self.copies = words[-1][4:8]
        return "backup: database is there"

    def pulumi(self, *words: str) -> str:
        self._record(" ".join(word.rpartition(".")[2] for word in words if "=" in word))
        return ""

    @property
    def steps(self) -> list[str]:
        return [entry for entry in self.calls if entry != "ended"]


def test_make_move_changes_the_database_name_only_after_the_old_database_is_closed_and_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(monkeypatch, environment_during_move("live"), DURING_MOVE)
    move.main(["staging"])
    assert server.steps[:3] == ["close", "copy", "introduce"]
    assert server.steps[3].startswith("single=kept name=board_r")
    assert len(server.steps) == 4
    # The move waits until two consecutive queries find no session that started before the database became read-only.
    assert server.calls[1:4] == ["ended"] * 3
    assert server.copies == ("database", "board", "database-ha-rw", "board")


def test_make_move_copies_the_live_database_and_not_the_configured_database(monkeypatch: pytest.MonkeyPatch) -> None:
    live = deploy(env=environment_during_move("live", name="board_r1"), stack="staging", secrets=ALL_SECRETS)
    server = Server(monkeypatch, environment_during_move("live", name="board_r2"), live)
    server.name = "board_r1"
    move.main(["staging"])
    assert server.copies == ("database", "board_r1", "database-ha-rw", "board")


@pytest.mark.parametrize("failing_step", ["close", "copy", "introduce", "single=kept"])
def test_single_instance_database_accepts_writes_again_after_a_failed_make_move(
    failing_step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(monkeypatch, environment_during_move("live"), DURING_MOVE)
    server.failing_step = failing_step
    with pytest.raises(RunError, match=failing_step):
        move.main(["staging"])
    assert server.steps[-1] == "open"
    assert "takes writes again" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["SIGHUP", "SIGTERM"])
@pytest.mark.parametrize("module", ["move", "restore"])
def test_interrupted_move_or_restore_is_undone_even_if_more_signals_arrive(module: str, number: str) -> None:
    arguments = "['stack']" if module == "move" else "'stack', 'latest'"
    program = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the test runner may ignore this signal
from ci import {module} as command
def begin(*_):
    try:
        os.kill(os.getpid(), signal.{number})
        print("it went on")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        print("undone")
command.move = command.restore = begin
command.main({arguments})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (result.returncode, result.stdout) == (1, "undone\n"), result.stderr
    assert f"{module}: stopped by a signal ({number})" in result.stderr


def test_make_move_is_aborted_by_a_write_to_the_database_during_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, environment_during_move("live"), DURING_MOVE)
    server.rows_written = 2
    with pytest.raises(RunError, match="2 rows were written into database board, although it was read-only"):
        move.main(["staging"])
    assert server.steps == ["close", "copy", "open"]


@pytest.mark.parametrize(
    ("env", "deployment", "message"),
    [
        (environment_during_move("kept"), DURING_MOVE, "set ha: true and single: live"),
        (environment_during_move("live"), first_release("staging"), "the database cluster does not exist yet"),
        (environment_during_move("live"), ALL["database-cluster"], "the live release does not use the single database"),
        (environment("staging"), first_release("staging"), "set ha: true and single: live"),
    ],
)
def test_make_move_is_refused_before_any_step_unless_the_single_instance_database_is_live(
    env: dict[str, Any], deployment: Deployment, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, env, deployment)
    with pytest.raises(RunError, match=message):
        move.main(["staging"])
    assert not server.calls


def test_make_move_without_backups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment_during_move("live")
    del env["tiers"]["database"]["backup"]
    server = Server(monkeypatch, env, DURING_MOVE)
    with pytest.raises(RunError, match=r"tiers\.database\.backup: "):
        move.main(["staging"])
    assert not server.calls


def test_make_reopen_is_refused_if_the_single_instance_database_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, environment_during_move("kept"), DURING_MOVE)
    move.main(["staging", "--reopen"])
    # The stack file must name the single database before that database takes writes again. Otherwise the next `make up` would
    # use the copy, which lacks the new writes.
    assert server.steps == ["single=live name=board", "open"]
    server = Server(monkeypatch, environment_during_move("kept"), deploy_during_move("kept", DURING_MOVE))
    with pytest.raises(RunError, match="does not use the single database"):
        move.main(["staging", "--reopen"])
    assert not server.calls
