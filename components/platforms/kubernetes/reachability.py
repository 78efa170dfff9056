"""Check of the connections that NetworkPolicies allow. All functions are pure.

The policies come from this program or from a cluster. The check follows the rules of Kubernetes (networking.k8s.io/v1):

- If policies select a pod for a direction, only the connections in their rules are allowed.
- If no policy selects a pod, all its connections are allowed.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

Labels = Mapping[str, str]
Pod = tuple[str, Labels]
"""Namespace and labels of a pod."""


class Network:
    """Policies of a namespace, and the connections that they allow."""

    def __init__(self, namespace: str, policies: Sequence[Mapping[str, Any]]) -> None:
        self.namespace, self.policies = namespace, list(policies)

    def reaches(self, one: Pod | str, other: Pod | str, port: int, protocol: str = "TCP") -> bool:
        """Return whether `one` may connect to `port` of `other`. `one` and `other` are pods, or addresses outside of the cluster."""
        return self.allows("Egress", one, other, port, protocol) and self.allows("Ingress", other, one, port, protocol)

    def allows(self, direction: str, pod: Pod | str, other: Pod | str, port: int, protocol: str) -> bool:
        """Return whether the policies for `pod` allow a connection.

        The direction `Egress` is from `pod` to `other`, and `Ingress` is from `other` to `pod`.
        """
        rules = list(self._rules(direction, pod))
        if not rules:  # No policy selects the pod, so all connections are allowed.
            return True
        key = {"Egress": "to", "Ingress": "from"}[direction]
        return any(
            self._includes_peer(rule.get(key), other) and _includes_port(rule.get("ports"), port, protocol)
            for rules_of_one in rules
            for rule in rules_of_one
        )

    def _rules(self, direction: str, pod: Pod | str) -> Iterator[Sequence[Mapping[str, Any]]]:
        for policy in self.policies:
            spec = policy["spec"]
            if (
                not isinstance(pod, str)
                and pod[0] == self.namespace
                and direction in spec["policyTypes"]
                and _selects(spec.get("podSelector"), pod[1])
            ):
                yield spec.get(direction.lower()) or []

    def _includes_peer(self, peers: Sequence[Mapping[str, Any]] | None, other: Pod | str) -> bool:
        return not peers or any(self._peer(peer, other) for peer in peers)

    def _peer(self, peer: Mapping[str, Any], other: Pod | str) -> bool:
        if "ipBlock" in peer:
            return isinstance(other, str) and _within(peer["ipBlock"], ip_address(other))
        if isinstance(other, str):
            return False
        namespace, labels = other
        inside = (
            _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
            if "namespaceSelector" in peer
            else namespace == self.namespace
        )
        return inside and _selects(peer.get("podSelector"), labels)


def _selects(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    terms = selector or {}
    return terms.get("matchLabels", {}).items() <= labels.items() and all(
        _matches(expression, labels) for expression in terms.get("matchExpressions") or ()
    )


def _matches(expression: Mapping[str, Any], labels: Labels) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[expression["operator"]]


def _includes_port(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    """Return whether a rule's ports include `port`. A port name always matches, because only the pod defines the port's number."""
    return not ports or any(
        entry.get("protocol", "TCP") == protocol
        and (isinstance(first := entry.get("port", port), str) or first <= port <= entry.get("endPort", first))
        for entry in ports
    )


def _within(block: Mapping[str, Any], address: IPv4Address | IPv6Address) -> bool:
    return address in ip_network(block["cidr"]) and not any(
        address in ip_network(cidr) for cidr in block.get("except") or ()
    )
