"""Risk of a preview: its verdict, and its dangerous changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from components.model.names import SERVICE_ROLES, without_versions
from components.release.checkpoint import LABEL_SLOT, Checkpoint, Entry

from .markdown import escape, join
from .read import Area, Change, Op, Preview

PUBLIC_EXPOSURE, NETWORK_OPENED = "public exposure", "network opened"


class Verdict(StrEnum):
    """Summary of all changes of a preview."""

    NONE = "no change"
    RELEASE = "release only"
    IN_PLACE = "changes in place"
    """Changes that neither touch data nor come from a new release. Examples: the live slot's scale, a quota, the gateway."""
    DATA = "touches data"
    LOSS = "replaces or deletes"
    """Replacement or deletion of a resource that both slots share. A slot's resources don't count: each release replaces them."""


def verdict(preview: Preview) -> Verdict:
    """Return the verdict of the most severe change."""
    changes = [change for change in preview.changes if change.op or change.loses_protection]
    if losses(preview):
        return Verdict.LOSS
    if any(change.area is Area.DATA for change in changes):
        return Verdict.DATA
    plan = preview.plan
    has_release = plan is not None and (plan.render is not None or plan.moves)
    if any(change.area is Area.SHARED or not has_release for change in changes):
        return Verdict.IN_PLACE
    return Verdict.RELEASE if has_release else Verdict.NONE


def losses(preview: Preview) -> list[Change]:
    """Return the changes that replace or delete a shared resource.

    Images don't count, because they stay on the engine. A resource without data doesn't count if the update creates a
    new version of the resource. The name of a version ends with a hash of the content, as for secrets and alert rules.
    """
    created = {_name_without_version(change) for change in preview.changes if change.op is Op.CREATE}
    return [
        change
        for change in preview.changes
        if change.area in (Area.DATA, Area.SHARED) and change.op in (Op.REPLACE, Op.DELETE)
        if change.kind != "RemoteImage"
        and (change.membership.holds_data or _name_without_version(change) not in created)
    ]


def _name_without_version(change: Change) -> tuple[str, str, str]:
    """Return a key that is equal for all versions of a resource: type, parent, and name without the hash of the content."""
    entry = change.entry
    return entry.type, entry.parent, without_versions(entry.name)


def dangers(preview: Preview) -> list[str]:
    """Return the dangerous changes of a preview, in Markdown."""
    return [*_losses(preview), *_removed_protection(preview), *_new_connections(preview), *_removed_barriers(preview)]


def _losses(preview: Preview) -> Iterator[str]:
    # Data comes first, because it can't be restored by another update.
    groups: dict[tuple[bool, str, Op], list[Change]] = {}
    for change in losses(preview):
        groups.setdefault((change.area is not Area.DATA, change.membership.owner, change.op), []).append(change)
    for (_, owner, op), changes in sorted(groups.items()):
        with_data = [f"{change.title} **with its data**" for change in changes if change.membership.holds_data]
        without_data = [change.title for change in changes if not change.membership.holds_data]
        yield f"**{owner} is {op.word}**, and both slots share it: {join([*with_data, *without_data])}"


def _removed_protection(preview: Preview) -> Iterator[str]:
    if titles := [change.title for change in preview.changes if change.loses_protection]:
        yield f"**protection removed**: the next update may delete {join(titles)}"


@dataclass(frozen=True, order=True)
class _Connection:
    """Connection that a resource allows between the stack and the outside."""

    category: str
    text: str


def _new_connections(preview: Preview) -> Iterator[str]:
    for connection in sorted(_connections(preview.after) - _connections(preview.before)):
        yield f"**{connection.category}**: {connection.text}"


def _connections(state: Checkpoint) -> set[_Connection]:
    connections: set[_Connection] = set()
    for entry in state.entries:
        connections |= {_Connection(PUBLIC_EXPOSURE, text) for text in _exposures(entry)}
        connections |= {_Connection(NETWORK_OPENED, text) for text in _open_networks(entry)}
    return connections


def _exposures(entry: Entry) -> Iterator[str]:
    """Yield a text for each address or route by which a resource can be reached from outside."""
    name, spec = _name_in_any_slot(entry), _spec(entry)
    for port in entry.inputs.get("ports") or ():
        if port.get("ip") != "127.0.0.1":
            yield f"{name} listens on port {port.get('external')} of the host, at {port.get('ip') or 'every address'}"
    if entry.type.endswith(":Service") and spec.get("type", "ClusterIP") not in ("ClusterIP", "ExternalName"):
        yield f"Service {name} is a {spec['type']}"
    if entry.type.endswith((":HTTPRoute", ":Gateway")) and entry.custom:
        listeners = [listener.get("hostname") or "any host" for listener in spec.get("listeners") or ()]
        yield from (f"users reach it as `{escape(host)}`" for host in [*(spec.get("hostnames") or ()), *listeners])


def _open_networks(entry: Entry) -> Iterator[str]:
    """Yield a text for each connection that a resource allows to or from a network outside of the stack."""
    if entry.role in (*SERVICE_ROLES, "task") and entry.tier:
        for network in entry.inputs.get("networksAdvanced") or ():
            if str(network["name"]).endswith("-outside"):
                yield f"{entry.tier} may connect to the outside"
    if entry.type.endswith(":NetworkPolicy"):
        name = _name_in_any_slot(entry)
        yield from (f"NetworkPolicy {name} {permission}" for permission in _permissions(_spec(entry)))


def _permissions(spec: Mapping[str, Any]) -> Iterator[str]:
    for rules, peers, verb in (
        ("ingress", "from", "accepts connections from"),
        ("egress", "to", "allows connections to"),
    ):
        for rule in spec.get(rules) or ():
            if not rule.get(peers):
                yield f"{verb} every address"
            for peer in rule.get(peers) or ():
                cidr = str(cast(Mapping[str, Any], peer.get("ipBlock") or {}).get("cidr", ""))
                if cidr and not cidr.startswith("169.254."):  # Link-local addresses belong to the node.
                    yield f"{verb} {cidr}"


def _name_in_any_slot(entry: Entry) -> str:
    """Return the name of a resource without its slot, in Markdown."""
    slot = entry.labels.get(LABEL_SLOT, "")
    return f"`{escape(entry.name.replace(f'-{slot}', '') if slot else entry.name)}`"


def _spec(entry: Entry) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], entry.inputs.get("spec") or {})


def _removed_barriers(preview: Preview) -> Iterator[str]:
    before, after = (
        {barrier for entry in state.entries for barrier in _barriers(entry)}
        for state in (preview.before, preview.after)
    )
    yield from (f"**{NETWORK_OPENED}**: this no longer applies: {barrier}" for barrier in sorted(before - after))


def _barriers(entry: Entry) -> Iterator[str]:
    """Yield a text for each restriction that a resource imposes, such as a closed network or a NetworkPolicy that denies all."""
    inputs, name = entry.inputs, escape(entry.name)
    if entry.type.endswith(":Network") and inputs.get("internal"):
        yield f"network `{name}` is closed to the outside"
    if entry.type.endswith(":NetworkPolicy") and inputs["spec"].get("ingress") == inputs["spec"].get("egress") == []:
        yield f"NetworkPolicy `{name}` denies all connections that no other policy allows"
    if level := entry.labels.get("pod-security.kubernetes.io/enforce"):
        yield f"namespace `{name}` enforces Pod Security {level}"
