"""Tests of the connections that the rendered NetworkPolicies allow between all pairs of pods, in both directions.

The tests compute these connections from the policies and open no real connections, because the lab's cluster network
does not enforce policies.
"""

from itertools import permutations, product
from typing import Any

import pytest

from components.platforms.kubernetes import reachability
from components.platforms.kubernetes.reachability import Pod

from .program import (
    CONTAINER,
    Deployment,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    pods,
    project,
    second_release,
)
from .test_kubernetes import ALL

GATEWAY: Pod = ("gateway", {"app": "traefik"})
DNS: Pod = ("kube-system", {"k8s-app": "kube-dns"})
STRANGER: Pod = ("elsewhere", {"app.kubernetes.io/name": "api", "tiers.needs/database": "yes"})
WORLD = "203.0.113.7"


class Network(reachability.Network):
    """Pods of one or more deployments, and the connections that the policies of these deployments allow."""

    def __init__(self, *deployed: Deployment) -> None:
        objects = {entry.urn: entry for deployment in deployed for entry in deployment.objects if entry.inputs}
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
        """Return the pairs (client, server) in which the client can connect to the server's port.

        Clients and servers are the pods, the gateway, an internet address (`world`) and a pod of another namespace
        (`stranger`).
        """
        peers: dict[str, Pod | str] = {**self.pods, "gateway": GATEWAY, "world": WORLD, "stranger": STRANGER}
        ports = self.ports | {"gateway": 8000, "world": 5432, "stranger": 80}
        return {
            (client, server)
            for client, server in product(peers, peers)
            if client != server and not {client, server} <= {"gateway", "world", "stranger"}
            if self.reaches(peers[client], peers[server], ports.get(server, 80))
        }

    def edges(self, direction: str) -> set[tuple[str, str]]:
        """Return the pairs (client, server) of pods that the policies of one direction allow to connect.

        Args:
            direction: `Egress` or `Ingress`. Policies of the other direction are ignored.
        """
        return {
            (client, server)
            for client, server in product(self.pods, self.ports)
            if client != server
            if self.allows(
                direction,
                *(
                    (self.pods[client], self.pods[server])
                    if direction == "Egress"
                    else (self.pods[server], self.pods[client])
                ),
                self.ports[server],
                "TCP",
            )
        }


def opens_only_the_port_of_each_edge(network: Network) -> None:
    for client, server in network.graph():
        if server in network.pods:
            source = GATEWAY if client == "gateway" else network.pods[client]
            assert not network.reaches(source, network.pods[server], network.ports[server] + 1), (client, server)


def reaches_dns_and_no_stranger(network: Network) -> None:
    for pod in network.pods.values():
        assert network.reaches(pod, DNS, 53, "UDP")
        assert network.reaches(pod, DNS, 53)
        assert not network.reaches(pod, DNS, 9153)
        assert not network.reaches(pod, ("kube-system", {"k8s-app": "server"}), 53)
    ports = {**dict.fromkeys(network.pods, 8000), **network.ports}
    assert not [name for name, port in ports.items() if network.reaches(STRANGER, network.pods[name], port)]
    assert not [name for name, port in ports.items() if network.reaches(WORLD, network.pods[name], port)]


def lets_no_stray_pod_connect(network: Network) -> None:
    stray: Pod = (network.namespace, {"app": "stray"})
    assert not any(network.reaches(stray, pod, network.ports.get(name, 80)) for name, pod in network.pods.items())
    assert not network.reaches(stray, WORLD, 443)
    assert not network.reaches(GATEWAY, stray, 80)


def slot(name: str) -> set[tuple[str, str]]:
    return {
        ("gateway", f"web-{name}"), ("gateway", f"api-{name}"), (f"{name}-smoke", "gateway"),
        (f"api-{name}", "database"), (f"api-{name}", "cache"), (f"{name}-api-migrate", "database"),
        (f"{name}-api-migrate", "cache"), (f"worker-{name}", "database"), (f"worker-{name}", "cache"),
    }  # fmt: skip


MEMBERS = ("cache-0", "cache-1", "cache-2")
INSTANCES = ("database-ha-1", "database-ha-2", "database-ha-3", "database-pooler")
REPLICATION_EDGES = {
    *permutations(MEMBERS, 2),
    *permutations(INSTANCES, 2),
    *(("cache-proxy", name) for name in MEMBERS),
}


def expected_graph(stack: str, *names: str) -> set[tuple[str, str]]:
    """Return the expected connections in a stack with these slots, as pairs (client, server).

    In prod the cache and the database have several instances. There, clients of the cache reach only the cache proxy,
    and no cache member. Clients of the database reach the pooler and the database instances, because migrations and
    read-only connections bypass the pooler.
    """
    edges = {edge for name in names for edge in slot(name)}
    if stack == "staging":
        return edges
    endpoints = {"cache": ("cache-proxy",), "database": INSTANCES}
    return {
        (client, entry) for client, server in edges for entry in endpoints.get(server, (server,))
    } | REPLICATION_EDGES


@pytest.mark.parametrize(("stack", "number"), [("staging", 7), ("prod", 13)])
def test_network_policies_allow_exactly_the_connections_of_the_tier_graph(stack: str, number: int) -> None:
    network = Network(first_release(stack))
    assert len(network.pods) == number
    assert network.graph() == expected_graph(stack, "blue")


def test_only_cache_members_reach_the_sentinels_of_the_cache() -> None:
    network = Network(first_release("prod"))
    edges = {
        (client, server)
        for client, server in product(network.pods, MEMBERS)
        if client != server and network.reaches(network.pods[client], network.pods[server], 26379)
    }
    assert edges == set(permutations(MEMBERS, 2))


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_network_policies_open_only_the_port_of_each_connection(stack: str) -> None:
    opens_only_the_port_of_each_edge(Network(first_release(stack)))


def test_gateway_outside_the_cluster_is_admitted_by_its_ip_addresses() -> None:
    env = environment("staging")
    env["kubernetes"]["gateway"] |= {"cidrs": ["203.0.113.0/24"], "pods_in": "proxies"}
    network = Network(deploy(env=env, stack="staging"))
    for tier in ("web-blue", "api-blue"):
        assert network.reaches(WORLD, network.pods[tier], network.ports[tier])
        assert network.reaches(("proxies", {}), network.pods[tier], network.ports[tier])
        assert not network.reaches(GATEWAY, network.pods[tier], network.ports[tier])
    assert not network.reaches(WORLD, network.pods["database"], 5432)


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_pods_of_one_slot_can_not_connect_to_pods_of_the_other_slot(stack: str) -> None:
    network = Network(first_release(stack), second_release(stack))
    assert network.graph() == expected_graph(stack, "blue", "green")


def test_exactly_the_expected_connections_are_open_with_needs_and_egress_and_an_external_database() -> None:
    """Check the connections if web and worker need the api, the api has egress, and the database is external."""
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
    reaches_dns_and_no_stranger(Network(deployed))


def test_pod_that_belongs_to_no_tier_reaches_no_pod() -> None:
    lets_no_stray_pod_connect(Network(first_release("staging")))


@pytest.mark.parametrize("direction", ["Egress", "Ingress"])
def test_ingress_policies_alone_and_egress_policies_alone_allow_only_the_expected_connections(direction: str) -> None:
    """Check the policies of each direction without the policies of the other direction.

    A connection needs an egress policy and an ingress policy. Therefore a strict egress policy could hide an ingress
    policy that allows too much, and the reverse.
    """
    network = Network(first_release("staging"))
    expected = {
        (client, server) for client, server in slot("blue") if client in network.pods and server in network.pods
    }
    assert network.edges(direction) == expected


def test_egress_of_one_slot_does_not_open_egress_of_the_other_slot() -> None:
    app: dict[str, Any] = project() | {"version": "2.0.0"}
    app["api"] |= {"egress": True}
    network = Network(
        first_release("staging"), deploy(app, export=checkpoint_of(first_release("staging")), stack="staging")
    )
    pods_with_egress = {name for name, pod in network.pods.items() if network.reaches(pod, WORLD, 443)}
    assert pods_with_egress == {"api-green", "green-api-migrate"}


def test_egress_of_the_environment_opens_egress_of_every_service_in_a_slot_and_of_no_other_pod() -> None:
    network = Network(deploy(env=environment("staging") | {"egress": True}, stack="staging"))
    pods_with_egress = {name for name, pod in network.pods.items() if network.reaches(pod, WORLD, 443)}
    assert pods_with_egress == {"api-blue", "web-blue", "worker-blue", "blue-api-migrate"}
    on_docker = deploy(env=environment("dev") | {"egress": True})
    outside = {
        entry.name for entry in on_docker.of_type(CONTAINER) if "-outside" in str(entry.inputs.get("networksAdvanced"))
    }
    assert {"blue-api-1", "blue-web-1", "blue-worker-1"} <= outside
    assert not {name for name in outside if name.startswith(("database", "cache"))}


def test_pods_without_network_policies_can_connect_in_the_computed_graph() -> None:
    """Check that the computed graph has connections if no policy exists.

    If the graph were always empty, every test of a forbidden connection would pass.
    """
    network = Network(first_release("staging"))
    network.policies.clear()
    assert len(network.graph()) > 40
