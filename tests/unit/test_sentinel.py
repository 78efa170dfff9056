"""A cache with `ha`: who may be primary when a member starts, what is made of it, and how a single one becomes three."""

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
    """The script as member cache-1 runs it, among Sentinels that say what a test lets them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        (folder / "password").write_text(PASSWORD)
        (folder / "redis-cli").write_text(REDIS_CLI)
        (folder / "redis-cli").chmod(0o755)

    def says(self, host: str, primary: str, epoch: int = 0, replicas: int = 0, flags: str = "master") -> None:
        told = {"name": "tiers", "ip": primary, "port": 6379, "flags": flags, "num-slaves": replicas}
        told |= {"config-epoch": epoch}
        (self.folder / host).write_text("".join(f"{key}\n{value}\n" for key, value in told.items()))

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


class TestWhoIsPrimary:
    def test_what_two_say_counts(self, member: Member) -> None:
        member.says("cache-0", "cache-0")
        member.says("cache-2", "cache-0")
        assert "replicaof cache-0 6379" in member.run("server", "cat")

    def test_what_one_says_does_not(self, member: Member) -> None:
        """It may be the one that a failover has passed by."""
        member.says("cache-1", "cache-0")
        assert member.waits()

    def test_nobody_is_until_somebody_says_so(self, member: Member) -> None:
        assert member.waits()

    def test_the_last_epoch_counts_and_not_the_most_voices(self, member: Member) -> None:
        member.says("cache-0", "cache-0", epoch=9)
        member.says("cache-1", "cache-0", epoch=9)
        member.says("cache-2", "cache-2", epoch=10)
        assert "replicaof cache-2 6379" in member.run("server", "cat")

    def test_it_waits_for_the_end_of_a_failover(self, member: Member) -> None:
        member.says("cache-0", "cache-1", replicas=2, flags="s_down,o_down,master,failover_in_progress")
        member.says("cache-2", "cache-1", replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert member.waits()

    def test_it_is_itself_the_very_first_time(self, member: Member) -> None:
        for host in ("cache-0", "cache-1"):
            member.says(host, "cache-1")
        assert "replicaof" not in member.run("server", "cat")

    def test_it_is_again_with_its_data(self, member: Member) -> None:
        for host in ("cache-0", "cache-1"):
            member.says(host, "cache-1", epoch=3, replicas=2)
        (member.data / "appendonlydir").mkdir()
        assert "replicaof" not in member.run("server", "cat")

    def test_it_is_not_once_its_data_is_lost(self, member: Member) -> None:
        """It would take theirs from the others: they choose one of them first."""
        member.says("cache-0", "cache-1", epoch=3, replicas=2)
        member.says("cache-1", "cache-1")
        assert member.waits()


class TestTheWatcher:
    KNOWN = "sentinel monitor tiers cache-2 6379 2\nsentinel config-epoch tiers 7\nsentinel known-replica tiers cache-0 6379\n"

    def written(self, member: Member) -> str:
        member.run("watcher", "true")
        return (member.data / "sentinel.conf").read_text()

    def test_it_begins_with_the_first_member(self, member: Member) -> None:
        assert "sentinel monitor tiers cache-0 6379 2\n" in self.written(member)

    def test_without_a_memory_it_believes_the_others(self, member: Member) -> None:
        member.says("cache-2", "cache-2", epoch=4)
        assert "sentinel monitor tiers cache-2 6379 2\n" in self.written(member)

    def test_it_keeps_what_it_has_seen_and_takes_its_settings_anew(self, member: Member) -> None:
        (member.data / "sentinel.conf").write_text(f"requirepass old\n{self.KNOWN}sentinel auth-pass tiers old\n")
        written = self.written(member)
        assert self.KNOWN in written
        assert " old" not in written
        assert written.count("sentinel monitor") == 1

    def test_the_password_of_the_cache_is_not_on_disk(self, member: Member) -> None:
        assert PASSWORD not in self.written(member)

    def test_it_is_the_same_after_its_disk_was_lost(self, member: Member) -> None:
        """Else the others would count one more, and it would take more of them to agree."""
        one = next(line for line in self.written(member).splitlines() if "myid" in line)
        (member.data / "sentinel.conf").unlink()
        assert one in self.written(member)


def test_a_replica_leaves_at_once_and_a_primary_hands_over_before(member: Member) -> None:
    (member.folder / "redis-cli").write_text(
        '#!/bin/sh\necho "$@" >> "$ANSWERS/asked"\n'
        'case "$*" in role) cat "$ANSWERS/role" ;; *failover*) echo OK ;; *master*) cat "$ANSWERS/$2" ;; esac\n'
    )
    asked = member.folder / "asked"
    (member.folder / "role").write_text("slave\n")
    member.run("leave")
    assert asked.read_text() == "role\n"
    (member.folder / "role").write_text("master\n")
    for host in ("cache-0", "cache-1", "cache-2"):
        member.says(host, "cache-2", epoch=1)
    member.run("leave")
    lines = asked.read_text().splitlines()
    assert lines[2] == "client pause 5000 write", "nothing is answered that the next primary has not"
    assert lines[3] == "-h cache-0 -p 26379 sentinel failover tiers", "its own Sentinel is leaving, too"


def test_no_password_is_in_a_command_line_of_what_is_started(member: Member) -> None:
    for host in ("cache-0", "cache-1"):
        member.says(host, "cache-0")
    member.run("server", "sh", "-c", 'cat; tr "\\0" " " < /proc/self/cmdline >> "$ANSWERS/asked"')
    assert PASSWORD not in (member.folder / "asked").read_text()


# ---------------------------------------------------------------------- on Kubernetes


@cache
def single() -> Deployment:
    """Prod as it was before its cache had `ha`. Shared: don't change what it returns."""
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


def test_each_member_has_data_a_name_and_an_address_of_its_own() -> None:
    deployed = first("prod")
    claims = {"cache": "cache-data", "cache-1": "cache-data-1", "cache-2": "cache-data-2"}
    for resource, name in MEMBERS.items():
        volumes = spec(deployed, resource)["volumes"]
        [claim] = [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]
        assert claim == claims[resource]
        assert deployed.one("PersistentVolumeClaim", claim).protect
        for container in spec(deployed, resource)["containers"]:
            assert {"name": "MEMBER", "value": name} in container["env"]
        address = deployed.one("Service", name).inputs["spec"]
        labels = deployed.one("StatefulSet", resource).inputs["spec"]["template"]["metadata"]["labels"]
        assert address["selector"].items() <= labels.items()
        assert address["publishNotReadyAddresses"] is True
        assert "clusterIP" not in address, "an address that changes is one Sentinel would not hear of"
        others = [other for other in MEMBERS if other != resource]
        for other in others:
            labels = deployed.one("StatefulSet", other).inputs["spec"]["template"]["metadata"]["labels"]
            assert not address["selector"].items() <= labels.items()


def test_the_first_member_takes_the_place_of_the_single_one_and_its_data() -> None:
    """Of one resource, which is deleted before it is made anew: two over the same data would ruin it."""
    before, after = single(), first("prod")
    assert before.one("StatefulSet", "cache").urn == after.one("StatefulSet", "cache").urn
    assert before.one("PersistentVolumeClaim", "cache-data").urn == after.one("PersistentVolumeClaim", "cache-data").urn
    metadata = [each.one("StatefulSet", "cache").inputs["metadata"]["name"] for each in (before, after)]
    assert metadata == ["cache", "cache-0"]


def test_who_needs_the_cache_comes_to_the_proxy_once_that_leads_somewhere() -> None:
    deployed = first("prod")
    address = deployed.one("Service", "cache")
    proxy = deployed.one("Deployment", "cache-proxy")
    found = address.inputs["spec"]["selector"].items()
    assert found <= proxy.inputs["spec"]["template"]["metadata"]["labels"].items()
    assert set(MEMBERS) <= deployed.before(proxy)
    assert "cache-proxy" in deployed.before("blue-api-migrate")
    startup = proxy.inputs["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert startup["httpGet"]["path"] == "/primary"


def test_nobody_comes_to_a_member_past_the_proxy() -> None:
    """Not even while there are members already and a single one's address is still there: who came so stayed, with a replica."""
    after = changed(single())
    address, gone = after.one("Service", "cache"), single().one("Service", "cache").inputs["spec"]["selector"].items()
    found = address.inputs["spec"]["selector"].items()
    for each in (after.one("StatefulSet", name) for name in MEMBERS):
        labels = each.inputs["spec"]["template"]["metadata"]["labels"].items()
        assert gone <= labels, "then it would not have to come first"
        assert not found <= labels
        assert address.urn in each.waits_for


def test_those_who_can_not_talk_to_the_others_start_together_and_all_else_changes_one_by_one() -> None:
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
    """Which other members a member waits for."""
    members = {deployed.one("StatefulSet", each).urn: each for each in MEMBERS}
    return {members[urn] for urn in deployed.one("StatefulSet", name).waits_for & members.keys()}


def test_what_a_member_is_made_from_is_part_of_its_selector() -> None:
    one, other = (
        [json.dumps(each.one("StatefulSet", name).inputs["spec"]["selector"]) for name in MEMBERS]
        for each in (first("prod"), changed(first("prod")))
    )
    assert len({*one, *other}) == 6


def test_the_way_back_to_a_single_one_is_refused_with_the_reason() -> None:
    env: Any = environment("prod")
    del env["tiers"]["cache"]["ha"]
    with pytest.raises(
        Exception, match=r"environment\.tiers\.cache\.ha: .*cache-data-1 would be deleted.*keep ha: true"
    ):
        deploy(env=env, export=exported(first("prod")), stack="prod")


def test_a_cache_with_ha_is_no_part_of_a_release() -> None:
    assert single().release == first("prod").release


def test_the_proxy_leads_to_who_takes_writes_and_cuts_who_is_passed_by() -> None:
    text = sentinel.configuration(("cache-0", "cache-1"))
    assert r'expect rstring "role:master\r\nconnected_slaves:\d+\r\nmin_slaves_good_slaves:[1-9]"' in text
    assert "on-marked-down shutdown-sessions" in text
    assert [line.split()[2] for line in text.splitlines() if line.startswith("  server ")] == [
        "cache-0:6379", "cache-1:6379",
    ]  # fmt: skip
