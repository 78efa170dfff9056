"""Read the changes of an update from the JSON of `pulumi preview`.

The resources before and after the update are parsed as two checkpoints, with the same parser that the program uses
(`checkpoint.parse`). Unchanged resources, such as those of the live slot, are needed, too. Pulumi lists unchanged
resources only with the option `--show-sames`.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, cast

from ci.pulumi_stack import ROOT
from components.release import checkpoint
from components.release.checkpoint import Checkpoint, Entry
from components.release.planner import Plan, Slot, StackState
from components.safety.data import holds_data, owner

from .markdown import escape
from .masking import mask_logins, masked_inputs

_REPEATED_ERROR = re.compile(r"error: (preview failed|an unhandled error occurred: program exited .*)")
"""Messages that only repeat that an error occurred."""


class Op(IntEnum):
    """Operation on a resource. A higher value is a more severe operation."""

    SAME = 0
    CREATE = 1
    UPDATE = 2
    REPLACE = 3
    DELETE = 4

    @property
    def word(self) -> str:
        return ("unchanged", "new", "changed", "replaced", "deleted")[self]


_OPS = {"same": Op.SAME, "read": Op.SAME, "refresh": Op.SAME, "create": Op.CREATE, "import": Op.CREATE} | {
    "delete": Op.DELETE, "replace": Op.REPLACE, "create-replacement": Op.REPLACE, "delete-replaced": Op.REPLACE,
}  # fmt: skip


class Area(StrEnum):
    """Part of the stack that a resource belongs to. The area with the highest risk is first."""

    DATA = "data"
    SHARED = "shared"
    SWITCH = "switch"
    SLOT = "slot"


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Position of a resource in the stack: area, owner and slot."""

    area: Area
    owner: str
    """Service or component that the resource belongs to, such as `database`.

    The provider, networks and volumes belong to `ground`.
    """
    slot: str = ""
    """Slot of the resource, or an empty text for a resource that both slots share."""
    holds_data: bool = False
    """True if the resource has data that an update must not lose."""


def classify(entry: Entry) -> Membership:
    """Return a resource's area, owner and slot, derived from the URNs and labels of the resource."""
    component = entry.urn.split("::")[2].partition("$")[0]
    service, has_data = owner(entry.parent), holds_data(entry.urn, entry.labels)
    name = component.rpartition(":")[2].lower()
    if component == checkpoint.SLOT:
        slot = entry.parent.rpartition("::")[2].partition("-")[0]
        return Membership(area=Area.SLOT, owner=entry.tier or name, slot=slot, holds_data=has_data)
    if component == checkpoint.LIVE_SERVICE:
        # The switch hands these objects over to the new release.
        return Membership(area=Area.SWITCH, owner=entry.parent.rpartition("::")[2])
    area = Area.SWITCH if component == checkpoint.SWITCH else Area.SHARED
    return Membership(area=Area.DATA if has_data or service else area, owner=service or name, holds_data=has_data)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Change of one resource by an update."""

    op: Op
    old: Entry | None
    new: Entry | None
    reasons: tuple[str, ...] = ()
    """Inputs that make a replacement necessary."""
    loses_protection: bool = False
    """True if the update removes the protection from deletion."""

    @property
    def entry(self) -> Entry:
        entry = self.new or self.old
        assert entry
        return entry

    @property
    def membership(self) -> Membership:
        return classify(self.entry)

    @property
    def area(self) -> Area:
        return self.membership.area

    @property
    def kind(self) -> str:
        return self.entry.type.rpartition(":")[2]

    @property
    def title(self) -> str:
        """Kind and name of the resource, in Markdown."""
        return f"{self.kind} `{escape(self.entry.name)}`"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Changes of an update. Entries and changes are sorted by URN, because Pulumi's order is random."""

    stack: str
    changes: tuple[Change, ...]
    before: Checkpoint
    after: Checkpoint
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def state_before(self) -> StackState:
        """Live slot, and release of each slot, before the update."""
        return checkpoint.observe(self.before)

    @property
    def state_after(self) -> StackState:
        """Live slot, and release of each slot, after the update."""
        return checkpoint.observe(self.after)

    @property
    def plan(self) -> Plan | None:
        """Plan of the update, derived from the states before and after the update.

        None if no slot is live after the update, or if the preview failed early.
        """
        before, after = self.state_before, self.state_after
        if not after.live:
            return None
        render = next((slot for slot in Slot if slot in after.slots and not self.keeps(slot)), None)
        target = render or after.live
        return Plan(
            live=after.live,
            release=after.slots[target].release,
            render=render,
            keep=tuple(slot for slot in Slot if slot in after.slots and slot is not render),
            switches=after.switches,
            previous=before.live,
            waits=render is not None and after.live is before.live,
        )

    def keeps(self, slot: Slot) -> bool:
        """Return True if a slot keeps its release, and this release is live or has passed its gates."""
        before, after = self.state_before, self.state_after
        old, new = before.slots.get(slot), after.slots.get(slot)
        if not old or not new:
            return False
        return old.release == new.release and (old.proven or slot is before.live)


def run_preview(stack: str) -> Mapping[str, Any]:
    """Run `pulumi preview` and return its JSON. If Pulumi prints no JSON, return a mapping with its error message."""
    command = ["pulumi", "preview", "--json", "--show-sames", "--non-interactive", "--stack", stack]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    try:
        return json.loads(result.stdout)
    except json.JSONDecodeError:
        message = result.stderr.strip() or result.stdout.strip()
        message = message or f"`{' '.join(command)}` ended with exit code {result.returncode}"
        return {"diagnostics": [{"severity": "error", "message": message}]}


def parse_preview(output: Mapping[str, Any], stack: str) -> Preview:
    """Return the preview from the JSON of `pulumi preview --json --show-sames`. All secrets are masked here."""
    steps_by_urn: dict[str, list[Mapping[str, Any]]] = {}
    for step in cast(Sequence[Mapping[str, Any]], output.get("steps") or ()):
        steps_by_urn.setdefault(step["urn"], []).append(step)
    resources = [_ResourceSteps(urn=urn, steps=tuple(steps)) for urn, steps in sorted(steps_by_urn.items())]
    before = _checkpoint(resource.before for resource in resources)
    after = _checkpoint(resource.after for resource in resources)
    old, new = ({entry.urn: entry for entry in state.entries} for state in (before, after))
    changes = (resource.change(old.get(resource.urn), new.get(resource.urn)) for resource in resources)
    diagnostics = [(diagnostic["severity"], diagnostic["message"]) for diagnostic in output.get("diagnostics") or ()]
    return Preview(
        stack=stack,
        changes=tuple(change for change in changes if change.entry.custom),
        before=before,
        after=after,
        errors=tuple(_messages(text for severity, text in diagnostics if severity == "error")),
        warnings=tuple(_messages(text for severity, text in diagnostics if severity == "warning")),
    )


@dataclass(frozen=True, kw_only=True)
class _ResourceSteps:
    """Steps that a preview lists for one resource. A replacement may have several steps."""

    urn: str
    steps: tuple[Mapping[str, Any], ...]

    @property
    def op(self) -> Op:
        """Operation of all steps together, such as `REPLACE` for a create and a delete. An unknown step counts as `UPDATE`."""
        ops = {_OPS.get(step["op"], Op.UPDATE) for step in self.steps}
        return Op.REPLACE if {Op.CREATE, Op.DELETE} <= ops else max(ops)

    @property
    def before(self) -> Mapping[str, Any] | None:
        return self._state("oldState")

    @property
    def after(self) -> Mapping[str, Any] | None:
        """State after the update. For an unchanged resource this is the old state, because the new state lacks outputs."""
        if self.op is Op.DELETE:
            return None
        return self._state("newState") if self.op else self.before or self._state("newState")

    def change(self, old: Entry | None, new: Entry | None) -> Change:
        """Return the change of the resource. `old` and `new` are its entries in the checkpoints before and after the update."""
        if not old and not new:
            kind = self.urn.split("::")[2].rpartition("$")[2]
            old = Entry(urn=self.urn, type=kind, parent="", custom=True)
        return Change(
            op=self.op,
            old=old,
            new=new,
            reasons=tuple(sorted({reason for step in self.steps for reason in step.get("replaceReasons") or ()})),
            loses_protection=new is not None and self._is_protected("oldState") and not self._is_protected("newState"),
        )

    def _state(self, side: str) -> Mapping[str, Any] | None:
        state = next((step[side] for step in self.steps if step.get(side)), None)
        return {**state, "inputs": masked_inputs(state), "outputs": state.get("outputs") or {}} if state else None

    def _is_protected(self, side: str) -> bool:
        return any(cast(Mapping[str, Any], step.get(side) or {}).get("protect") for step in self.steps)


def _checkpoint(states: Iterable[Mapping[str, Any] | None]) -> Checkpoint:
    return checkpoint.parse({"deployment": {"resources": [state for state in states if state]}})


def _messages(texts: Iterable[str]) -> Iterator[str]:
    """Yield each message once. Leave out messages that only repeat that an error occurred."""
    for text in dict.fromkeys(text.strip() for text in texts):
        if not _REPEATED_ERROR.fullmatch(text):
            yield mask_logins(text.removeprefix("error: "))
