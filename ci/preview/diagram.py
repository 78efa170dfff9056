"""Diagram of an update: the tiers, coloured by their most severe change, and the routes from the gateway to the slots."""

from collections.abc import Iterator, Mapping

from components.model import services
from components.release.planner import Slot, StackState
from components.safety.data import owner

from .read import Op, Preview

_COLOURS = {
    Op.SAME: "fill:#eeeeee,stroke:#999999,color:#333333", Op.CREATE: "fill:#d3f2d9,stroke:#2b8a3e,color:#111111",
    Op.UPDATE: "fill:#fff0b8,stroke:#b58900,color:#111111", Op.REPLACE: "fill:#ffd8a8,stroke:#d9480f,color:#111111",
    Op.DELETE: "fill:#ffc9c9,stroke:#c92a2a,color:#111111",
}  # fmt: skip


def diagram(preview: Preview) -> Iterator[str]:
    """Yield the diagram in Mermaid, or nothing if no tier changes."""
    ops = _most_severe_ops(preview)
    if not any(ops.values()):
        return
    data_tiers = _data_tiers(preview)
    lines = [_node(tier, tier, ops.get(("", tier), Op.SAME)) for tier in ("gateway", *data_tiers)]
    for slot in Slot:
        if slot_lines := [*_slot(preview, slot, ops)]:
            lines += [*slot_lines, *(f"{slot} --- {tier}" for tier in data_tiers)]
    visible_ops = [op for op in Op if any(line.endswith(f":::{op.word}") for line in lines)]
    lines += [f"classDef {op.word} {_COLOURS[op]}" for op in visible_ops]
    yield "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _data_tiers(preview: Preview) -> list[str]:
    """Return the names of the services that both slots share: database and cache, then the stores."""
    shared = {owner(change.entry.parent) for change in preview.changes if not change.membership.slot}
    names = sorted(name for name in shared if name)
    return sorted(names, key=services.common_catalogue().position)


def _most_severe_ops(preview: Preview) -> dict[tuple[str, str], Op]:
    """Return the most severe operation on each tier, by (slot, tier). The slot of a shared component is an empty text."""
    ops: dict[tuple[str, str], Op] = {}
    for change in preview.changes:
        membership = change.membership
        # In a slot only running resources count, because secrets and tasks change with every release.
        if change.entry.runs or not membership.slot:
            key = membership.slot, membership.owner
            ops[key] = max(ops.get(key, Op.SAME), change.op)
    return ops


def _slot(preview: Preview, slot: Slot, ops: Mapping[tuple[str, str], Op]) -> Iterator[str]:
    """Yield the diagram lines of a slot: its tiers, and the route from the gateway to the slot.

    Yield nothing if the slot is empty before and after the update.
    """
    before, after = preview.state_before, preview.state_after
    state = after.slots.get(slot) or before.slots.get(slot)
    if not state:
        return
    is_kept = preview.keeps(slot)
    yield f'subgraph {slot}["{slot}: {state.release}"]'
    for tier in sorted(part for part in state.release.parts if "." not in part):
        yield _node(f"{slot}_{tier}", tier, ops.get((slot, tier), Op.SAME), is_kept)
    yield "end"
    yield from _route(slot, before, after)


def _node(key: str, tier: str, op: Op, is_kept: bool = False) -> str:
    """Return the node of a tier. The node says `suspended` if the tier's objects are deleted but its slot keeps the release."""
    status = "suspended" if is_kept and op is Op.DELETE else op.word
    label = tier if op is Op.SAME else f"{tier}<br>{status}"
    return f'{key}["{label}"]:::{op.word}'


def _route(slot: Slot, before: StackState, after: StackState) -> Iterator[str]:
    if after.live is slot:
        yield f"gateway ==>|{'live' if before.live is slot else 'after the switch'}| {slot}"
    elif before.live is slot and after.live:
        yield f"gateway -.->|until the switch| {slot}"
