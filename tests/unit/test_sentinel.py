"""Tests of a highly available cache (`ha: true`): selection of the primary, Sentinel, and rendered objects.

Other tests check the change from a single cache instance to three cache members.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from components import sentinel
from components.platforms.kubernetes.objects import Manifest

from .program import SECRETS, Deployment, checkpoint_of, deploy, environment, first_release

REDIS_CLI = """\
#!/bin/sh
# The file with the name of host $2 has the answer of its Sentinel. All requests are recorded.
echo "$@" >> "$ANSWERS/requests"
test -f "$ANSWERS/$2" && cat "$ANSWERS/$2"
"""
PASSWORD = "the-cache-secret"


class Member:
    """Cache member `cache-1`, which runs sentinel.sh with a mock of redis-cli. A test sets the answers of the mock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        (folder / "password").write_text(PASSWORD)
        (folder / "redis-cli").write_text(REDIS_CLI)
        (folder / "redis-cli").chmod(0o755)

    def set_answer(self, host: str, primary: str, epoch: int = 0, replicas: int = 0, flags: str = "master") -> None:
        answer = {"name": "tiers", "ip": primary, "port": 6379, "flags": flags, "num-slaves": replicas}
        answer |= {"config-epoch": epoch}
        (self.folder / host).write_text("".join(f"{key}\n{value}\n" for key, value in answer.items()))

    def run(self, role: str, *command: str, within: float = 5) -> str:
        script = sentinel.plain_script().replace("/data", str(self.data)).replace("sleep 1", "sleep 0.05")
        variables = {"PATH": f"{self.folder}:{os.environ['PATH']}", "ANSWERS": str(self.folder), "MEMBER": "cache-1"}
        words = ["sh", "-euc", script, role, str(self.folder / "password"), "cache-0 cache-1 cache-2", *command]
        result = subprocess.run(words, env=variables, capture_output=True, text=True, check=True, timeout=within)
        return result.stdout

    def is_waiting(self) -> bool:
        try:
            self.run("server", "cat", within=1)
        except subprocess.TimeoutExpired:
            return True
        return False


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


class TestSelectionOfThePrimary:
    def test_cache_member_follows_the_primary_reported_by_two_sentinels(self, member: Member) -> None:
        member.set_answer("cache-0", "cache-0")
        member.set_answer("cache-2", "cache-0")
        assert "replicaof cache-0 6379" in member.run("server", "cat")

    def test_cache_member_does_not_follow_a_primary_reported_by_only_one_sentinel(self, member: Member) -> None:
        """Check that the member waits for a second answer, because one Sentinel may have missed a failover."""
        member.set_answer("cache-1", "cache-0")
        assert member.is_waiting()

    def test_cache_member_waits_while_no_sentinel_answers(self, member: Member) -> None:
        assert member.is_waiting()

    def test_cache_member_follows_the_primary_with_the_latest_epoch_and_not_with_the_majority(
        self, member: Member
    ) -> None:
        member.set_answer("cache-0", "cache-0", epoch=9)
        member.set_answer("cache-1", "cache-0", epoch=9)
        member.set_answer("cache-2", "cache-2", epoch=10)
        assert "replicaof cache-2 6379" in member.run("server", "cat")

    def test_cache_member_waits_for_the_end_of_a_failover(self, member: Member) -> None:
        member.set_answer("cache-0", "cache-1", replicas=2, flags="s_down,o_down,master,failover_in_progress")
        member.set_answer("cache-2", "cache-1", replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert member.is_waiting()

    def test_cache_member_without_data_becomes_primary_at_the_first_start_if_sentinels_name_this_member(
        self, member: Member
    ) -> None:
        for host in ("cache-0", "cache-1"):
            member.set_answer(host, "cache-1")
        assert "replicaof" not in member.run("server", "cat")

    def test_restarted_cache_primary_with_its_data_is_primary_again(self, member: Member) -> None:
        for host in ("cache-0", "cache-1"):
            member.set_answer(host, "cache-1", epoch=3, replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert "replicaof" not in member.run("server", "cat")

    def test_restarted_cache_primary_without_its_data_waits_for_another_primary(self, member: Member) -> None:
        """Check that the member does not become primary, because the replicas of an empty primary would delete their data."""
        member.set_answer("cache-0", "cache-1", epoch=3, replicas=2)
        member.set_answer("cache-1", "cache-1")
        assert member.is_waiting()


class TestSentinel:
    STORED_STATE = "sentinel monitor tiers cache-2 6379 2\nsentinel config-epoch tiers 7\nsentinel known-replica tiers cache-0 6379\n"

    def sentinel_file(self, member: Member) -> str:
        member.run("watcher", "true")
        return (member.data / "sentinel.conf").read_text()

    def test_new_sentinel_monitors_the_first_cache_member(self, member: Member) -> None:
        assert "sentinel monitor tiers cache-0 6379 2\n" in self.sentinel_file(member)

    def test_sentinel_without_a_configuration_file_monitors_the_primary_reported_by_other_sentinels(
        self, member: Member
    ) -> None:
        member.set_answer("cache-2", "cache-2", epoch=4)
        assert "sentinel monitor tiers cache-2 6379 2\n" in self.sentinel_file(member)

    def test_restarted_sentinel_keeps_its_state_and_renews_its_settings(self, member: Member) -> None:
        (member.data / "sentinel.conf").write_text(
            f"requirepass old\n{self.STORED_STATE}sentinel auth-pass tiers old\n"
        )
        sentinel_file = self.sentinel_file(member)
        assert self.STORED_STATE in sentinel_file
        assert " old" not in sentinel_file
        assert sentinel_file.count("sentinel monitor") == 1

    def test_sentinel_file_does_not_contain_the_cache_password(self, member: Member) -> None:
        assert PASSWORD not in self.sentinel_file(member)

    def test_sentinel_keeps_its_id_after_its_disk_is_lost(self, member: Member) -> None:
        """Check that a Sentinel without its disk starts with its old id.

        With a new id, the other Sentinels would count this Sentinel twice and require more votes for a failover.
        """
        id_line = next(line for line in self.sentinel_file(member).splitlines() if "myid" in line)
        (member.data / "sentinel.conf").unlink()
        assert id_line in self.sentinel_file(member)


def test_cache_primary_starts_a_failover_before_the_primary_stops(member: Member) -> None:
    (member.folder / "redis-cli").write_text(
        '#!/bin/sh\necho "$@" >> "$ANSWERS/requests"\n'
        'case "$*" in role) cat "$ANSWERS/role" ;; *failover*) echo OK ;; *master*) cat "$ANSWERS/$2" ;; esac\n'
    )
    log = member.folder / "requests"
    (member.folder / "role").write_text("slave\n")
    member.run("leave")
    assert log.read_text() == "role\n"
    (member.folder / "role").write_text("master\n")
    for host in ("cache-0", "cache-1", "cache-2"):
        member.set_answer(host, "cache-2", epoch=1)
    member.run("leave")
    lines = log.read_text().splitlines()
    assert lines[2] == "client pause 5000 write", "the primary must not acknowledge writes that the next primary lacks"
    assert lines[3] == "-h cache-0 -p 26379 sentinel failover tiers", (
        "the Sentinel of the primary's own pod stops too, so the primary uses another Sentinel"
    )


def test_command_line_of_the_cache_server_contains_no_password(member: Member) -> None:
    for host in ("cache-0", "cache-1"):
        member.set_answer(host, "cache-0")
    member.run("server", "sh", "-c", 'cat; tr "\\0" " " < /proc/self/cmdline >> "$ANSWERS/requests"')
    assert PASSWORD not in (member.folder / "requests").read_text()


# ---------------------------------------------------------------------- on Kubernetes


@cache
def deploy_single_cache() -> Deployment:
    """Return a deployment of prod with a single cache instance. Tests share the deployment and must not change it."""
    env: Any = environment("prod")
    del env["tiers"]["cache"]["ha"]
    return deploy(env=env, stack="prod")


def deploy_changed_cache(export: Deployment) -> Deployment:
    env: Any = environment("prod")
    env["tiers"]["cache"]["memory"] = "640Mi"
    return deploy(env=env, export=checkpoint_of(export), stack="prod")


def spec(deployed: Deployment, resource: str) -> Manifest:
    return deployed.get_object("StatefulSet", resource).inputs["spec"]["template"]["spec"]


MEMBERS = {"cache": "cache-0", "cache-1": "cache-1", "cache-2": "cache-2"}


def test_each_cache_member_has_a_separate_volume_and_name_and_service() -> None:
    deployed = first_release("prod")
    claims = {"cache": "cache-data", "cache-1": "cache-data-1", "cache-2": "cache-data-2"}
    for resource, name in MEMBERS.items():
        volumes = spec(deployed, resource)["volumes"]
        [claim] = [
            volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume
        ]
        assert claim == claims[resource]
        assert deployed.get_object("PersistentVolumeClaim", claim).protect
        for container in spec(deployed, resource)["containers"]:
            assert {"name": "MEMBER", "value": name} in container["env"]
        service = deployed.get_object("Service", name).inputs["spec"]
        labels = deployed.get_object("StatefulSet", resource).inputs["spec"]["template"]["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        assert service["publishNotReadyAddresses"] is True
        assert "clusterIP" not in service, "Sentinel does not notice a changed address"
        others = [other for other in MEMBERS if other != resource]
        for other in others:
            labels = deployed.get_object("StatefulSet", other).inputs["spec"]["template"]["metadata"]["labels"]
            assert not service["selector"].items() <= labels.items()


def test_first_cache_member_replaces_the_single_instance_on_the_same_volume() -> None:
    """Check that the single instance and the first member are the same Pulumi resource.

    Therefore Pulumi deletes the single instance before it creates the first member. Otherwise two instances would
    write to the same volume and corrupt the data.
    """
    before, after = deploy_single_cache(), first_release("prod")
    assert before.get_object("StatefulSet", "cache").urn == after.get_object("StatefulSet", "cache").urn
    assert (
        before.get_object("PersistentVolumeClaim", "cache-data").urn
        == after.get_object("PersistentVolumeClaim", "cache-data").urn
    )
    metadata = [entry.get_object("StatefulSet", "cache").inputs["metadata"]["name"] for entry in (before, after)]
    assert metadata == ["cache", "cache-0"]


def test_cache_service_selects_the_cache_proxy_and_this_proxy_starts_after_the_members() -> None:
    deployed = first_release("prod")
    service = deployed.get_object("Service", "cache")
    proxy = deployed.get_object("Deployment", "cache-proxy")
    selector = service.inputs["spec"]["selector"].items()
    assert selector <= proxy.inputs["spec"]["template"]["metadata"]["labels"].items()
    assert set(MEMBERS) <= deployed.dependencies_of(proxy)
    assert "cache-proxy" in deployed.dependencies_of("blue-api-migrate")
    startup = proxy.inputs["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert startup["httpGet"]["path"] == "/primary"


def test_cache_service_never_selects_a_cache_member() -> None:
    """Check that the Service `cache` selects no cache member, even while a single instance becomes three members.

    Otherwise a client could reach a replica through the Service and stay connected to the replica.
    """
    after = deploy_changed_cache(deploy_single_cache())
    service, old_selector = (
        after.get_object("Service", "cache"),
        deploy_single_cache().get_object("Service", "cache").inputs["spec"]["selector"].items(),
    )
    selector = service.inputs["spec"]["selector"].items()
    for entry in (after.get_object("StatefulSet", name) for name in MEMBERS):
        labels = entry.inputs["spec"]["template"]["metadata"]["labels"].items()
        assert old_selector <= labels, "the old selector matches the members, so the order matters"
        assert not selector <= labels
        assert service.urn in entry.waits_for


def test_cache_members_restart_together_after_a_password_change_and_one_by_one_after_other_changes() -> None:
    new = deploy(env=environment("prod"), export=checkpoint_of(deploy_single_cache()), stack="prod")
    other = deploy(
        env=environment("prod"),
        export=checkpoint_of(first_release("prod")),
        stack="prod",
        secrets=SECRETS | {"cache-password": "x"},
    )
    for deployed in (first_release("prod"), new, other):
        assert not any(awaited_members(deployed, name) for name in MEMBERS)
    after = deploy_changed_cache(first_release("prod"))
    assert {name: awaited_members(after, name) for name in MEMBERS} == {
        "cache": set(), "cache-1": {"cache"}, "cache-2": {"cache", "cache-1"},
    }  # fmt: skip


def awaited_members(deployed: Deployment, name: str) -> set[str]:
    """Return the cache members that Pulumi updates before the member `name`."""
    members = {deployed.get_object("StatefulSet", entry).urn: entry for entry in MEMBERS}
    return {members[urn] for urn in deployed.get_object("StatefulSet", name).waits_for & members.keys()}


def test_pod_selector_differs_for_each_cache_member_and_after_each_change_of_settings() -> None:
    selectors_before, selectors_after = (
        [json.dumps(entry.get_object("StatefulSet", name).inputs["spec"]["selector"]) for name in MEMBERS]
        for entry in (first_release("prod"), deploy_changed_cache(first_release("prod")))
    )
    assert len({*selectors_before, *selectors_after}) == 6


def test_removal_of_cache_ha_with_its_volumes_is_refused() -> None:
    env: Any = environment("prod")
    del env["tiers"]["cache"]["ha"]
    with pytest.raises(
        Exception, match=r"environment\.tiers\.cache\.ha: .*cache-data-1 would be deleted.*keep ha: true"
    ):
        deploy(env=env, export=checkpoint_of(first_release("prod")), stack="prod")


def test_cache_ha_does_not_change_the_release_digest() -> None:
    assert deploy_single_cache().release == first_release("prod").release


def test_cache_proxy_routes_only_to_a_primary_with_a_replica_and_closes_other_sessions() -> None:
    text = sentinel.proxy_configuration(("cache-0", "cache-1"))
    assert r'expect rstring "role:master\r\nconnected_slaves:\d+\r\nmin_slaves_good_slaves:[1-9]"' in text
    assert "on-marked-down shutdown-sessions" in text
    assert [line.split()[2] for line in text.splitlines() if line.startswith("  server ")] == [
        "cache-0:6379", "cache-1:6379",
    ]  # fmt: skip
