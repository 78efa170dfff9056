"""A cache with `ha`: the primary when a member starts, the rendered objects, and the change from a single instance to three."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from components import sentinel
from components.platforms.manifests import Manifest

from .program import SECRETS, Deployment, deploy, environment, exported, first

REDIS_CLI = """\
#!/bin/sh
# Sentinel's answer on host $2 is in the file of its name; what is asked is kept.
echo "$@" >> "$ANSWERS/asked"
test -f "$ANSWERS/$2" && cat "$ANSWERS/$2"
"""
PASSWORD = "the-cache-secret"


class Member:
    """The script as member cache-1 runs it, with Sentinels that answer as a test configures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        (folder / "password").write_text(PASSWORD)
        (folder / "redis-cli").write_text(REDIS_CLI)
        (folder / "redis-cli").chmod(0o755)

    def says(self, host: str, primary: str, epoch: int = 0, replicas: int = 0, flags: str = "master") -> None:
        answer = {"name": "tiers", "ip": primary, "port": 6379, "flags": flags, "num-slaves": replicas}
        answer |= {"config-epoch": epoch}
        (self.folder / host).write_text("".join(f"{key}\n{value}\n" for key, value in answer.items()))

    def run(self, role: str, *command: str, within: float = 5) -> str:
        script = sentinel.SCRIPT.replace("/data", str(self.data)).replace("sleep 1", "sleep 0.05")
        variables = {"PATH": f"{self.folder}:{os.environ['PATH']}", "ANSWERS": str(self.folder), "MEMBER": "cache-1"}
        words = ["sh", "-euc", script, role, str(self.folder / "password"), "cache-0 cache-1 cache-2", *command]
        done = subprocess.run(words, env=variables, capture_output=True, text=True, check=True, timeout=within)
        return done.stdout

    def waits(self) -> bool:
        try:
            self.run("server", "cat", within=1)
        except subprocess.TimeoutExpired:
            return True
        return False


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


class TestChoiceOfThePrimary:
    def test_primary_named_by_two_sentinels_is_followed(self, member: Member) -> None:
        member.says("cache-0", "cache-0")
        member.says("cache-2", "cache-0")
        assert "replicaof cache-0 6379" in member.run("server", "cat")

    def test_primary_named_by_one_sentinel_is_not_followed(self, member: Member) -> None:
        """A single answer may come from a Sentinel that missed a failover."""
        member.says("cache-1", "cache-0")
        assert member.waits()

    def test_member_waits_until_sentinels_answer(self, member: Member) -> None:
        assert member.waits()

    def test_latest_epoch_wins_over_the_majority(self, member: Member) -> None:
        member.says("cache-0", "cache-0", epoch=9)
        member.says("cache-1", "cache-0", epoch=9)
        member.says("cache-2", "cache-2", epoch=10)
        assert "replicaof cache-2 6379" in member.run("server", "cat")

    def test_member_waits_for_the_end_of_a_failover(self, member: Member) -> None:
        member.says("cache-0", "cache-1", replicas=2, flags="s_down,o_down,master,failover_in_progress")
        member.says("cache-2", "cache-1", replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert member.waits()

    def test_named_member_is_primary_at_the_first_start(self, member: Member) -> None:
        for host in ("cache-0", "cache-1"):
            member.says(host, "cache-1")
        assert "replicaof" not in member.run("server", "cat")

    def test_named_member_with_its_data_is_primary_again(self, member: Member) -> None:
        for host in ("cache-0", "cache-1"):
            member.says(host, "cache-1", epoch=3, replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert "replicaof" not in member.run("server", "cat")

    def test_named_member_without_its_data_is_not_primary(self, member: Member) -> None:
        """An empty primary would make the replicas drop their data. They elect a new primary first."""
        member.says("cache-0", "cache-1", epoch=3, replicas=2)
        member.says("cache-1", "cache-1")
        assert member.waits()


class TestSentinel:
    KNOWN = "sentinel monitor tiers cache-2 6379 2\nsentinel config-epoch tiers 7\nsentinel known-replica tiers cache-0 6379\n"

    def written(self, member: Member) -> str:
        member.run("watcher", "true")
        return (member.data / "sentinel.conf").read_text()

    def test_new_sentinel_monitors_the_first_member(self, member: Member) -> None:
        assert "sentinel monitor tiers cache-0 6379 2\n" in self.written(member)

    def test_sentinel_without_a_file_monitors_the_primary_of_the_others(self, member: Member) -> None:
        member.says("cache-2", "cache-2", epoch=4)
        assert "sentinel monitor tiers cache-2 6379 2\n" in self.written(member)

    def test_restarted_sentinel_keeps_its_state_and_renews_its_settings(self, member: Member) -> None:
        (member.data / "sentinel.conf").write_text(f"requirepass old\n{self.KNOWN}sentinel auth-pass tiers old\n")
        written = self.written(member)
        assert self.KNOWN in written
        assert " old" not in written
        assert written.count("sentinel monitor") == 1

    def test_password_of_the_cache_is_not_on_disk(self, member: Member) -> None:
        assert PASSWORD not in self.written(member)

    def test_sentinel_keeps_its_id_after_its_disk_was_lost(self, member: Member) -> None:
        """With a new id the other Sentinels would count one more member, and the quorum would be larger."""
        one = next(line for line in self.written(member).splitlines() if "myid" in line)
        (member.data / "sentinel.conf").unlink()
        assert one in self.written(member)


def test_stopping_primary_fails_over_first_and_a_replica_does_not(member: Member) -> None:
    (member.folder / "redis-cli").write_text(
        '#!/bin/sh\necho "$@" >> "$ANSWERS/asked"\n'
        'case "$*" in role) cat "$ANSWERS/role" ;; *failover*) echo OK ;; *master*) cat "$ANSWERS/$2" ;; esac\n'
    )
    log = member.folder / "asked"
    (member.folder / "role").write_text("slave\n")
    member.run("leave")
    assert log.read_text() == "role\n"
    (member.folder / "role").write_text("master\n")
    for host in ("cache-0", "cache-1", "cache-2"):
        member.says(host, "cache-2", epoch=1)
    member.run("leave")
    lines = log.read_text().splitlines()
    assert lines[2] == "client pause 5000 write", "no write is acknowledged that the next primary does not have"
    assert lines[3] == "-h cache-0 -p 26379 sentinel failover tiers", "its own Sentinel is leaving, too"


def test_command_line_of_the_server_contains_no_password(member: Member) -> None:
    for host in ("cache-0", "cache-1"):
        member.says(host, "cache-0")
    member.run("server", "sh", "-c", 'cat; tr "\\0" " " < /proc/self/cmdline >> "$ANSWERS/asked"')
    assert PASSWORD not in (member.folder / "asked").read_text()


# ---------------------------------------------------------------------- on Kubernetes


@cache
def single() -> Deployment:
    """Deploy prod without `ha` for its cache. Tests share the deployment: do not change it."""
    env: Any = environment("prod")
    del env["tiers"]["cache"]["ha"]
    return deploy(env=env, stack="prod")


def changed(export: Deployment) -> Deployment:
    env: Any = environment("prod")
    env["tiers"]["cache"]["memory"] = "640Mi"
    return deploy(env=env, export=exported(export), stack="prod")


def spec(deployed: Deployment, resource: str) -> Manifest:
    return deployed.one("StatefulSet", resource).inputs["spec"]["template"]["spec"]


MEMBERS = {"cache": "cache-0", "cache-1": "cache-1", "cache-2": "cache-2"}


def test_each_member_has_its_own_volume_name_and_service() -> None:
    deployed = first("prod")
    claims = {"cache": "cache-data", "cache-1": "cache-data-1", "cache-2": "cache-data-2"}
    for resource, name in MEMBERS.items():
        volumes = spec(deployed, resource)["volumes"]
        [claim] = [
            volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume
        ]
        assert claim == claims[resource]
        assert deployed.one("PersistentVolumeClaim", claim).protect
        for container in spec(deployed, resource)["containers"]:
            assert {"name": "MEMBER", "value": name} in container["env"]
        address = deployed.one("Service", name).inputs["spec"]
        labels = deployed.one("StatefulSet", resource).inputs["spec"]["template"]["metadata"]["labels"]
        assert address["selector"].items() <= labels.items()
        assert address["publishNotReadyAddresses"] is True
        assert "clusterIP" not in address, "Sentinel does not notice a changed address"
        others = [other for other in MEMBERS if other != resource]
        for other in others:
            labels = deployed.one("StatefulSet", other).inputs["spec"]["template"]["metadata"]["labels"]
            assert not address["selector"].items() <= labels.items()


def test_first_member_replaces_the_single_instance_on_its_volume() -> None:
    """Both StatefulSets are one resource, which is deleted before it is created again: two instances on one volume would ruin the data."""
    before, after = single(), first("prod")
    assert before.one("StatefulSet", "cache").urn == after.one("StatefulSet", "cache").urn
    assert before.one("PersistentVolumeClaim", "cache-data").urn == after.one("PersistentVolumeClaim", "cache-data").urn
    metadata = [entry.one("StatefulSet", "cache").inputs["metadata"]["name"] for entry in (before, after)]
    assert metadata == ["cache", "cache-0"]


def test_cache_service_leads_to_the_proxy_once_members_run() -> None:
    deployed = first("prod")
    address = deployed.one("Service", "cache")
    proxy = deployed.one("Deployment", "cache-proxy")
    selector = address.inputs["spec"]["selector"].items()
    assert selector <= proxy.inputs["spec"]["template"]["metadata"]["labels"].items()
    assert set(MEMBERS) <= deployed.before(proxy)
    assert "cache-proxy" in deployed.before("blue-api-migrate")
    startup = proxy.inputs["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert startup["httpGet"]["path"] == "/primary"


def test_cache_service_never_selects_a_member() -> None:
    """This holds also during the change to `ha`. Clients that connected through the old address stayed with a replica."""
    after = changed(single())
    address, gone = after.one("Service", "cache"), single().one("Service", "cache").inputs["spec"]["selector"].items()
    selector = address.inputs["spec"]["selector"].items()
    for entry in (after.one("StatefulSet", name) for name in MEMBERS):
        labels = entry.inputs["spec"]["template"]["metadata"]["labels"].items()
        assert gone <= labels, "otherwise the order would not matter"
        assert not selector <= labels
        assert address.urn in entry.waits_for


def test_members_with_another_password_start_together_and_other_changes_roll() -> None:
    new = deploy(env=environment("prod"), export=exported(single()), stack="prod")
    other = deploy(
        env=environment("prod"), export=exported(first("prod")), stack="prod", secrets=SECRETS | {"cache-password": "x"}
    )
    for deployed in (first("prod"), new, other):
        assert not any(waits_for(deployed, name) for name in MEMBERS)
    after = changed(first("prod"))
    assert {name: waits_for(after, name) for name in MEMBERS} == {
        "cache": set(), "cache-1": {"cache"}, "cache-2": {"cache", "cache-1"},
    }  # fmt: skip


def waits_for(deployed: Deployment, name: str) -> set[str]:
    """Return the other members that a member waits for."""
    members = {deployed.one("StatefulSet", entry).urn: entry for entry in MEMBERS}
    return {members[urn] for urn in deployed.one("StatefulSet", name).waits_for & members.keys()}


def test_settings_of_a_member_are_part_of_its_selector() -> None:
    one, other = (
        [json.dumps(entry.one("StatefulSet", name).inputs["spec"]["selector"]) for name in MEMBERS]
        for entry in (first("prod"), changed(first("prod")))
    )
    assert len({*one, *other}) == 6


def test_return_to_a_single_cache_is_refused_with_the_reason() -> None:
    env: Any = environment("prod")
    del env["tiers"]["cache"]["ha"]
    with pytest.raises(
        Exception, match=r"environment\.tiers\.cache\.ha: .*cache-data-1 would be deleted.*keep ha: true"
    ):
        deploy(env=env, export=exported(first("prod")), stack="prod")


def test_cache_ha_is_no_part_of_the_release_digest() -> None:
    assert single().release == first("prod").release


def test_proxy_routes_to_the_writable_primary_and_closes_other_sessions() -> None:
    text = sentinel.configuration(("cache-0", "cache-1"))
    assert r'expect rstring "role:master\r\nconnected_slaves:\d+\r\nmin_slaves_good_slaves:[1-9]"' in text
    assert "on-marked-down shutdown-sessions" in text
    assert [line.split()[2] for line in text.splitlines() if line.startswith("  server ")] == [
        "cache-0:6379", "cache-1:6379",
    ]  # fmt: skip
