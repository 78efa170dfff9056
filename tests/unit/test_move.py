"""`make move`: a single-instance database is copied into a cluster beside it, tiers use the configured one, and no data is deleted silently."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from pulumi import RunError

from ci import beside, move
from components.checkpoint import parse
from components.config import ConfigError, load_app, load_environment
from components.guard import held, major_held

from .program import ROOT, SECRETS, Deployment, deploy, environment, exported, first, project
from .test_kubernetes import ALL
from .test_reachability import Network
from .test_replicated import misfit

MOVING = ALL["moving"]
KNOWN = SECRETS | {"backup-key": "the-key-of-backups"}
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"


def deployed(single: str | None, before: Deployment, **more: Any) -> Deployment:
    return deploy(env=described(single, **more), stack="staging", export=exported(before), secrets=KNOWN)


def described(single: str | None, **more: Any) -> dict[str, Any]:
    env = environment("staging")
    env["tiers"]["database"] |= {"ha": True, "backup": {"target": {"volume": True}}, **more}
    env["tiers"]["database"] |= {"single": single} if single else {}
    return env


def variables_of(deployed: Deployment, kind: str, name: str) -> dict[str, str]:
    spec = deployed.one(kind, name).inputs["spec"]["template"]["spec"]
    return {variable["name"]: variable.get("value", "") for variable in spec["containers"][0]["env"]}


def test_single_database_is_unchanged_when_the_cluster_is_added() -> None:
    before, after = first("staging"), deployed("live", first("staging"))
    for kind, name in (("StatefulSet", "database"), (CLAIM, "database-data"), ("Service", "database")):
        assert (after.one(kind, name).urn, after.one(kind, name).inputs) == (
            before.one(kind, name).urn,
            before.one(kind, name).inputs,
        )
    assert after.one("Cluster", "database-ha") and after.one("Pooler", "database-pooler")
    # This is no release: both slots and the switch stay unchanged.
    assert {entry.ignores for entry in after.of_type("Deployment") if entry.name == "api-blue"} == {("*",)}
    assert "green" not in {entry.labels.get("tiers.slot") for entry in after}
    assert set(held(parse(exported(after)))) >= {"database-data", "database-ha"}


@pytest.mark.parametrize(
    ("single", "hosts"),
    [
        ("live", ("database", "database", "database")),
        ("kept", ("database-pooler", "database-ha-rw", "database-ha-ro")),
        (None, ("database-pooler", "database-ha-rw", "database-ha-ro")),
    ],
)
def test_tiers_and_backups_use_the_configured_database(single: str | None, hosts: tuple[str, ...]) -> None:
    deployment = deploy(env=described(single), stack="staging", secrets=KNOWN)
    for kind, name in (("Deployment", "api-blue"), ("StatefulSet", "backup")):
        variables = variables_of(deployment, kind, name)
        assert tuple(variables[f"DATABASE_{way}HOST"] for way in ("", "DIRECT_", "READ_")) == hosts
    assert variables_of(deployment, "Job", "blue-api-migrate")["DATABASE_HOST"] == hosts[1]


def test_move_to_the_cluster_is_a_release_and_keeps_the_single_database() -> None:
    deployment = deployed("kept", MOVING, name="board_r20261121_233000")
    assert deployment.release and deployment.release != MOVING.release
    assert variables_of(deployment, "Deployment", "api-green")["DATABASE_NAME"] == "board_r20261121_233000"
    assert deployment.one("StatefulSet", "database").inputs == MOVING.one("StatefulSet", "database").inputs


def test_single_database_is_removed_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (first("staging"), MOVING, deployed("kept", MOVING)):
        with pytest.raises(
            ConfigError, match=r"tiers\.database\.single: .*board-staging/database-data would be deleted.*make move"
        ):
            deployed(None, before)
    monkeypatch.setenv("TIERS_FORCE", "data")
    assert CLAIM not in {entry.type for entry in deployed(None, MOVING) if entry.name == "database-data"}


def test_major_version_of_the_state_is_that_of_the_single_database() -> None:
    listed = exported(MOVING)["deployment"]["resources"]
    clusters = [entry for entry in listed if entry["type"].endswith(":Cluster")]
    # The order in the state does not matter.
    for resources in (listed, [*clusters, *listed]):
        assert major_held(parse({"deployment": {"resources": resources}})) == 15


def test_backup_pod_reaches_single_database_and_cluster() -> None:
    network = Network(MOVING)
    copies, instance = network.pods["backup"], network.pods["database-ha-1"]
    assert network.reaches(copies, network.pods["database"], 5432)
    assert network.reaches(copies, instance, 5432)
    assert not network.reaches(network.pods["database"], instance, 5432)


def test_single_is_refused_without_a_database_to_move() -> None:
    assert "environment.tiers.database.single: it is for a database that moves" in misfit({"single": "live"})
    assert "environment.tiers.database.single: a Docker engine has no such thing" in misfit({"single": "live"}, "dev")
    env = environment("staging")
    env["tiers"]["cache"] = {"ha": True, "single": "kept"}
    with pytest.raises(ConfigError, match=r"tiers\.cache\.single: it is for a database"):
        load_environment(env, load_app(project()))
    images = {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in ("web", "api", "worker", "database", "cache")}
    assert "app.database.image: " in misfit({"ha": True, "single": "live"}, pinned=True, images=images)


# ---------------------------------------------------------------------- make move


class Server:
    """Stand-in for the stack: it answers queries to the single database and records the steps of the move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, env: dict[str, Any], deployment: Deployment) -> None:
        self.done: list[str] = []
        self.fails, self.wrote = "", 0
        self.name, self.copies = "board", ()
        monkeypatch.setattr(move, "load", lambda _: (load_app(project()), load_environment(env, load_app(project()))))
        monkeypatch.setattr(move, "state", lambda _: exported(deployment))
        monkeypatch.setattr(beside, "project", lambda: "board")
        monkeypatch.setattr(move.cluster, "execute", self.query)
        monkeypatch.setattr(beside.platforms, "run_once", self.copied)
        monkeypatch.setattr(beside, "pulumi", self.pulumi)
        monkeypatch.setattr(beside.recovery, "introduce", lambda *_: self._does("introduce"))
        monkeypatch.setattr(move.time, "sleep", lambda _: None)

    def _does(self, what: str) -> None:
        self.done.append(what)
        if self.fails and self.fails in what:
            raise RunError(f"{what} fails")

    def query(self, settings: object, instance: str, labels: object, command: Sequence[str]) -> str:
        assert labels == {"app.kubernetes.io/name": "database"}  # of the single one, and of none of the three
        query = next(word for word in command if word.startswith(("ALTER", "SELECT")))
        if query.startswith("ALTER"):
            self._does("open" if "RESET" in query else "close")
            return "WARNING:  something\n2026-11-21 23:30:00+00"
        if "n_tup_ins" in query:
            assert self.name in command
            return str(7 + self.wrote * ("copy" in self.done))
        ended = sum(entry == "ended" for entry in self.done) % 3 == 0
        self.done.append("ended")
        return "4" if ended else "0"

    def copied(self, *words: Any) -> str:
        self._does("copy")
        self.copies = words[-1][4:8]
        return "backup: database is there"

    def pulumi(self, *words: str) -> str:
        self._does(" ".join(word.rpartition(".")[2] for word in words if "=" in word))
        return ""

    @property
    def steps(self) -> list[str]:
        return [entry for entry in self.done if entry != "ended"]


def test_move_closes_the_database_copies_it_and_writes_its_name_last(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, described("live"), MOVING)
    move.main(["staging"])
    assert server.steps[:3] == ["close", "copy", "introduce"]
    assert server.steps[3].startswith("single=kept name=board_r")
    assert len(server.steps) == 4
    # The move waits until no older session is left twice in a row.
    assert server.done[1:4] == ["ended"] * 3
    assert server.copies == ("database", "board", "database-ha-rw", "board")


def test_move_copies_the_live_database_not_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    live = deploy(env=described("live", name="board_r1"), stack="staging", secrets=KNOWN)
    server = Server(monkeypatch, described("live", name="board_r2"), live)
    server.name = "board_r1"
    move.main(["staging"])
    assert server.copies == ("database", "board_r1", "database-ha-rw", "board")


@pytest.mark.parametrize("fails", ["close", "copy", "introduce", "single=kept"])
def test_failed_move_reopens_the_single_database(
    fails: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(monkeypatch, described("live"), MOVING)
    server.fails = fails
    with pytest.raises(RunError, match=fails):
        move.main(["staging"])
    assert server.steps[-1] == "open"
    assert "takes writes again" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["SIGHUP", "SIGTERM"])
@pytest.mark.parametrize("module", ["move", "restore"])
def test_stopped_move_or_restore_is_undone_despite_further_signals(module: str, number: str) -> None:
    arguments = "['stack']" if module == "move" else "'stack', 'latest'"
    program = f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
from ci import {module} as asked
def begin(*_):
    try:
        os.kill(os.getpid(), signal.{number})
        print("it went on")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        print("undone")
asked.move = asked.restore = begin
asked.main({arguments})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "undone\n"), done.stderr
    assert f"{module}: it was told to stop ({number})" in done.stderr


def test_write_during_the_copy_stops_the_move(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, described("live"), MOVING)
    server.wrote = 2
    with pytest.raises(RunError, match="2 rows of board were written"):
        move.main(["staging"])
    assert server.steps == ["close", "copy", "open"]


@pytest.mark.parametrize(
    ("env", "deployment", "message"),
    [
        (described("kept"), MOVING, "set ha: true and single: live"),
        (described("live"), first("staging"), "the three are not there yet"),
        (described("live"), ALL["replicated"], "what is live does not use the single one"),
        (environment("staging"), first("staging"), "set ha: true and single: live"),
    ],
)
def test_move_in_a_wrong_state_is_refused_before_any_step(
    env: dict[str, Any], deployment: Deployment, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, env, deployment)
    with pytest.raises(RunError, match=message):
        move.main(["staging"])
    assert not server.done


def test_move_without_backups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env = described("live")
    del env["tiers"]["database"]["backup"]
    server = Server(monkeypatch, env, MOVING)
    with pytest.raises(RunError, match=r"tiers\.database\.backup: "):
        move.main(["staging"])
    assert not server.done


def test_reopen_is_refused_if_the_single_database_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, described("kept"), MOVING)
    move.main(["staging", "--reopen"])
    # The stack file comes first: otherwise writes after reopening could be left behind.
    assert server.steps == ["single=live name=board", "open"]
    server = Server(monkeypatch, described("kept"), deployed("kept", MOVING))
    with pytest.raises(RunError, match="does not use the single database"):
        move.main(["staging", "--reopen"])
    assert not server.done
