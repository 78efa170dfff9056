"""Connections between pods: the rendered NetworkPolicies are evaluated for all pairs of pods in both directions.

The lab's network does not enforce policies, so this test is the evidence for the graph.
"""

from itertools import permutations, product
from typing import Any

import pytest

from components.platforms import reachability
from components.platforms.reachability import Pod

from .program import Deployment, deploy, environment, exported, first, pods, project, second
from .test_kubernetes import ALL

GATEWAY: Pod = ("gateway", {"app": "traefik"})
DNS: Pod = ("kube-system", {"k8s-app": "kube-dns"})
STRANGER: Pod = ("elsewhere", {"app.kubernetes.io/name": "api", "tiers.needs/database": "yes"})
WORLD = "203.0.113.7"


class Network(reachability.Network):
    """Pods of a deployment, and the connections that its policies allow."""

    def __init__(self, *deployed: Deployment) -> None:
        objects = {entry.urn: entry for each_deployed in deployed for entry in each_deployed.objects if entry.inputs}
        policies = [entry.inputs for entry in objects.values() if entry.kind == "NetworkPolicy"]
        super().__init__(policies[0]["metadata"]["namespace"], policies)
        self.pods: dict[str, Pod] = {}
        self.ports: dict[str, int] = {}
        for entry in objects.values():
            for name, (labels, port) in pods(entry.inputs).items():
                self.pods[name] = (self.namespace, labels)
                if port:
                    self.ports[name] = port

    def graph(self) -> set[tuple[str, str]]:
        """Return all pairs of pods, gateway and world of which the first can connect to the second's own port."""
        peers: dict[str, Pod | str] = {**self.pods, "gateway": GATEWAY, "world": WORLD, "stranger": STRANGER}
        ports = self.ports | {"gateway": 8000, "world": 5432, "stranger": 80}
        return {
            (one, other)
            for one, other in product(peers, peers)
            if one != other and not {one, other} <= {"gateway", "world", "stranger"}
            if self.reaches(peers[one], peers[other], ports.get(other, 80))
        }


def slot(name: str) -> set[tuple[str, str]]:
    return {
        ("gateway", f"web-{name}"), ("gateway", f"api-{name}"), (f"{name}-smoke", "gateway"),
        (f"api-{name}", "database"), (f"api-{name}", "cache"), (f"{name}-api-migrate", "database"),
        (f"{name}-api-migrate", "cache"), (f"worker-{name}", "database"), (f"worker-{name}", "cache"),
    }  # fmt: skip


MEMBERS = ("cache-0", "cache-1", "cache-2")
INSTANCES = ("database-ha-1", "database-ha-2", "database-ha-3", "database-pooler")
AMONG = {*permutations(MEMBERS, 2), *permutations(INSTANCES, 2), *(("cache-proxy", name) for name in MEMBERS)}


def expected_graph(stack: str, *names: str) -> set[tuple[str, str]]:
    """Return the expected graph of these slots.

    In prod both data tiers are replicated. Clients of the cache reach its proxy and no member. Clients of the database reach
    its pooler, and each instance for connections that a pooler can't serve.
    """
    edges = {edge for name in names for edge in slot(name)}
    if stack == "staging":
        return edges
    several = {"cache": ("cache-proxy",), "database": INSTANCES}
    return {(one, entry) for one, other in edges for entry in several.get(other, (other,))} | AMONG


@pytest.mark.parametrize(("stack", "number"), [("staging", 7), ("prod", 13)])
def test_policies_allow_exactly_the_tier_graph(stack: str, number: int) -> None:
    network = Network(first(stack))
    assert len(network.pods) == number
    assert network.graph() == expected_graph(stack, "blue")


def test_only_cache_members_reach_the_sentinels() -> None:
    network = Network(first("prod"))
    reaching = {
        (one, other)
        for one, other in product(network.pods, MEMBERS)
        if one != other and network.reaches(network.pods[one], network.pods[other], 26379)
    }
    assert reaching == set(permutations(MEMBERS, 2))


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_policies_open_only_the_port_of_each_edge(stack: str) -> None:
    network = Network(first(stack))
    for one, other in network.graph():
        if other in network.pods:
            source = GATEWAY if one == "gateway" else network.pods[one]
            assert not network.reaches(source, network.pods[other], network.ports[other] + 1), (one, other)


def test_gateway_outside_the_cluster_is_admitted_by_its_addresses() -> None:
    env = environment("staging")
    env["kubernetes"]["gateway"] |= {"cidrs": ["203.0.113.0/24"], "pods_in": "proxies"}
    network = Network(deploy(env=env, stack="staging"))
    for tier in ("web-blue", "api-blue"):
        assert network.reaches(WORLD, network.pods[tier], network.ports[tier])
        assert network.reaches(("proxies", {}), network.pods[tier], network.ports[tier])
        assert not network.reaches(GATEWAY, network.pods[tier], network.ports[tier])
    assert not network.reaches(WORLD, network.pods["database"], 5432)


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_slots_do_not_reach_each_other(stack: str) -> None:
    network = Network(first(stack), second(stack))
    assert network.graph() == expected_graph(stack, "blue", "green")


def test_every_option_opens_only_its_own_edges() -> None:
    """In this deployment web and worker need the api, the api has egress, and the database is external."""
    network = Network(ALL["everything"])
    assert network.graph() == {
        ("gateway", "web-blue"), ("gateway", "api-blue"), ("web-blue", "api-blue"), ("worker-blue", "api-blue"),
        ("worker-blue", "cache"), ("api-blue", "cache"), ("api-blue", "world"), ("blue-api-migrate", "cache"),
        ("blue-api-migrate", "world"), ("blue-api-collect", "cache"), ("blue-api-collect", "world"),
        ("blue-smoke", "gateway"),
    }  # fmt: skip
    assert network.reaches(network.pods["blue-smoke"], WORLD, 443)
    for metadata in ("169.254.169.254", "fd00:ec2::254"):
        assert not [name for name, pod in network.pods.items() if network.reaches(pod, metadata, 80)], metadata
    assert network.reaches(network.pods["api-blue"], "2001:db8::1", 80)


def test_external_database_opens_egress_to_its_port_only() -> None:
    env = environment("staging")
    env["tiers"] = {"database": {"external": {"host": "db.test", "port": 6432}}}
    network = Network(deploy(env=env, stack="staging"))
    for name, pod in network.pods.items():
        needs = name in ("api-blue", "worker-blue", "blue-api-migrate")
        assert network.reaches(pod, WORLD, 6432) == needs
        assert not network.reaches(pod, WORLD, 443)


@pytest.mark.parametrize("deployed", ALL.values(), ids=ALL)
def test_every_pod_reaches_dns_and_no_other_namespace_reaches_a_pod(deployed: Deployment) -> None:
    network = Network(deployed)
    for pod in network.pods.values():
        assert network.reaches(pod, DNS, 53, "UDP")
        assert network.reaches(pod, DNS, 53)
        assert not network.reaches(pod, DNS, 9153)
        assert not network.reaches(pod, ("kube-system", {"k8s-app": "other"}), 53)
    ports = {**dict.fromkeys(network.pods, 8000), **network.ports}
    assert not [name for name, port in ports.items() if network.reaches(STRANGER, network.pods[name], port)]
    assert not [name for name, port in ports.items() if network.reaches(WORLD, network.pods[name], port)]


def test_pod_of_no_tier_reaches_no_pod() -> None:
    network = Network(first("staging"))
    stray: Pod = (network.namespace, {"app": "stray"})
    assert not any(network.reaches(stray, pod, network.ports.get(name, 80)) for name, pod in network.pods.items())
    assert not network.reaches(stray, WORLD, 443)
    assert not network.reaches(GATEWAY, stray, 80)


@pytest.mark.parametrize("direction", ["Egress", "Ingress"])
def test_ingress_and_egress_policies_each_match_the_graph(direction: str) -> None:
    """Otherwise a policy that is too wide could hide behind a narrow one."""
    network = Network(first("staging"))
    inside = {(one, other) for one, other in slot("blue") if one in network.pods and other in network.pods}
    edges = {
        (one, other)
        for one, other in product(network.pods, network.pods)
        if one != other and other in network.ports
        if network.may(
            direction,
            *(
                (network.pods[one], network.pods[other])
                if direction == "Egress"
                else (network.pods[other], network.pods[one])
            ),
            network.ports[other],
            "TCP",
        )
    }
    assert edges == inside


def test_egress_of_one_slot_does_not_open_the_other() -> None:
    app: dict[str, Any] = project() | {"version": "2.0.0"}
    app["api"] |= {"egress": True}
    network = Network(first("staging"), deploy(app, export=exported(first("staging")), stack="staging"))
    out = {name for name, pod in network.pods.items() if network.reaches(pod, WORLD, 443)}
    assert out == {"api-green", "green-api-migrate"}


def test_without_policies_every_connection_is_allowed() -> None:
    """The analyser itself must be able to report a connection."""
    network = Network(first("staging"))
    network.policies.clear()
    assert len(network.graph()) > 40
