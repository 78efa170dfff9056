"""Reader of the stack's checkpoint: the live slot, the release of each slot, and failures of the last update.

Pulumi writes the checkpoint after each step of an update, so the checkpoint is correct even after a failed or killed update. The
format of the checkpoint is the same on every platform (docs/adr/001-who-is-live.md). `CheckpointExport` runs the Pulumi command
line. All other functions are pure.
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pulumi import RunError

from ..model.names import (
    LABEL_ATTEMPT,
    LABEL_COMPONENT,
    LABEL_RELEASE,
    LABEL_ROLE,
    LABEL_SLOT,
    LABEL_SWITCH,
    LABEL_TIER,
)
from ..model.services import DATABASE
from ..state import reader
from ..state.types import is_image
from . import live
from .content import route_from_state
from .live import Claim, Evidence, Routing
from .planner import Release, Slot, SlotState, StackState

SLOT, SWITCH, STACK = "tiers:slot:Slot", "tiers:switch:Switch", "pulumi:pulumi:Stack"
SWITCHES = "switches"
"""Name of the output that stores the number of the last switch. `Switch` has this output. If a kept slot was live before the
update, its `Slot` has a copy."""

LIVE_SERVICE = "tiers:live:LiveService"
"""Type token of the components whose objects only the live release has."""
LIVE_OBJECTS = "live_objects"
"""Name of the output of `Slot` with the objects that only the live release has, by the name of their service."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A resource in the checkpoint.

    Example:
        has_api = any(entry.tier == "api" and entry.runs for entry in checkpoint.entries)
    """

    urn: str
    """URN of the resource."""
    type: str
    """Type token of the resource."""
    parent: str
    """URN of the parent."""
    custom: bool
    """True for a resource of a provider, False for a component."""
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Inputs of the resource."""
    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Outputs of the resource."""
    dependencies: tuple[str, ...] = ()
    """URNs of the resources that the resource depends on."""
    failed: bool = False
    """True if the last update could not create the resource, or if the resource's command failed."""
    protect: bool = False
    """True if Pulumi refuses to delete the resource."""
    sealed: bool = False
    """True if the resource has secret inputs, which `inputs` does not contain. Set only for entries of `release.memory`."""
    retained: bool = False
    """True if the platform keeps the object when Pulumi deletes the resource (`retain_on_delete`)."""

    @property
    def name(self) -> str:
        """Name of the resource in Pulumi."""
        return self.urn.rsplit("::", 1)[-1]

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the Docker resource or Kubernetes object."""
        return reader(self.inputs).labels(self.inputs)

    @property
    def role(self) -> str | None:
        """Value of the role label, such as `tier`, `task`, `smoke` or `switch`; None for a resource without this label."""
        return self.labels.get(LABEL_ROLE)

    @property
    def tier(self) -> str | None:
        """Name of the service that the resource belongs to, or None."""
        return self.labels.get(LABEL_TIER) or self.labels.get(LABEL_COMPONENT)

    @property
    def job(self) -> tuple[str, str, str]:
        """Name, cron expression and time zone of the scheduled job of a resource with the role `job`."""
        return reader(self.inputs).job(self.inputs)

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables of the resource's containers."""
        return reader(self.inputs).variables(self.inputs)

    @property
    def image_id(self) -> str | None:
        """Id of the image that a Docker resource pulls, builds or runs, or None."""
        return reader(self.inputs).image_id(self.inputs, self.outputs)

    @property
    def runs(self) -> bool:
        """True if the resource keeps containers running. A suspended slot has no such resource."""
        return self.custom and self.role in ("tier", "autoscaler")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Checkpoint of a stack: its resources, and the operations that an interrupted update left pending.

    A new stack has an empty checkpoint.

    Example:
        checkpoint = context.checkpoint
        has_switch = checkpoint.find("tiers:switch:Switch", "switch") is not None
    """

    entries: tuple[Entry, ...] = ()
    """Resources of the stack, parents first."""
    pending: tuple[str, ...] = ()
    """Pending operations, such as `creating blue-api`. If any exist, `make heal` must repair the state before the next update."""

    def descendants(self, name: str, type_: str) -> tuple[Entry, ...]:
        """Return the children of a component, their children and so on, parents first.

        Args:
            name: name of the component; `blue` or `green` for a slot's component.
            type_: type token of the component.
        """
        inside = {entry.urn for entry in self.entries if _is_component(entry, type_, name)}
        resources: list[Entry] = []
        for entry in self.entries:
            if entry.parent in inside:
                inside.add(entry.urn)
                resources.append(entry)
        return tuple(resources)

    def find(self, type_: str, name: str) -> Entry | None:
        """Return a resource, or None if the checkpoint lacks it.

        Args:
            type_: type token of the resource.
            name: name of the resource. For a component `Slot` use `blue` or `green`. For the component `Switch` any name works.
        """
        return next((entry for entry in self.entries if _is_component(entry, type_, name)), None)

    def attempt_label(self, name: str) -> dict[str, str]:
        """Return the label with the attempt number of a container that ends, such as a task. Attempt 1 has no label.

        A failed attempt increases the number. Pulumi then replaces the container, so the command runs again.
        """
        attempts = (
            int(entry.labels.get(LABEL_ATTEMPT, "1")) + entry.failed
            for entry in self.entries
            if entry.custom and entry.name == name
        )
        attempt = next(attempts, 1)
        return {LABEL_ATTEMPT: str(attempt)} if attempt > 1 else {}


def _is_component(entry: Entry, type_: str, name: str) -> bool:
    """Return whether an entry is the resource with this type and name.

    The components `Slot` and `Switch` may have any name. Therefore a `Slot` also matches by the input `slot`, and a `Switch`
    matches by its type alone. A stack has only one `Switch`.
    """
    if entry.type != type_:
        return False
    return entry.name == name or type_ == SWITCH or (type_ == SLOT and entry.inputs.get("slot") == name)


class CheckpointExport:
    """Export of the checkpoint in the background. The constructor starts `pulumi stack export`. `answer` waits for it."""

    def __init__(self, stack: str, root: str) -> None:
        """Start the export.

        Args:
            stack: name of the stack.
            root: folder of Pulumi.yaml, to run the command in. The program may be in another folder (`main` in Pulumi.yaml).

        Raises:
            RunError: the Pulumi command line is not installed.
        """
        self._command = ["pulumi", "stack", "export", "--stack", stack]
        self._answer: Checkpoint | None = None
        try:
            self._process = subprocess.Popen(
                self._command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            raise RunError(
                "pulumi: the command pulumi is not on PATH, but is needed to read the state; add its folder to PATH"
            ) from None

    def answer(self) -> Checkpoint:
        """Wait for the export, and return the checkpoint. Secrets in the checkpoint are encrypted.

        Raises:
            RunError: the Pulumi command line fails.
        """
        if self._answer is None:
            out, errors = self._process.communicate()
            if self._process.returncode:
                raise RunError(f"`{' '.join(self._command)}` failed: {errors.strip()}")
            self._answer = parse(json.loads(out))
        return self._answer


def parse(export: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint from the JSON of `pulumi stack export` (apitype.DeploymentV3)."""
    deployment = cast(Mapping[str, Any], export.get("deployment") or {})
    resources = cast(Sequence[Mapping[str, Any]], deployment.get("resources") or ())
    pending = cast(Sequence[Mapping[str, Any]], deployment.get("pending_operations") or ())
    return Checkpoint(
        entries=tuple(_entry(resource) for resource in resources if not resource.get("delete")),
        pending=tuple(f"{item['type']} {item['resource']['urn'].rpartition('::')[2]}" for item in pending),
    )


def refuse_pending_operations(checkpoint: Checkpoint, stack: str) -> None:
    """Refuse an update if the last update was interrupted and left pending operations.

    A pending operation may or may not have happened. The error names the fix, `make heal`.

    Raises:
        RunError: the checkpoint has pending operations.
    """
    if checkpoint.pending:
        raise RunError(
            f"the last update was interrupted while {', '.join(checkpoint.pending)}; run `make heal ENV={stack}` to compare the state with the "
            "platform and repair it, then repeat this command"
        )


def _entry(resource: Mapping[str, Any]) -> Entry:
    inputs = cast(Mapping[str, Any], resource.get("inputs") or {})
    outputs = cast(Mapping[str, Any], resource.get("outputs") or {})
    return Entry(
        urn=resource["urn"],
        type=resource["type"],
        parent=resource.get("parent", ""),
        custom=bool(resource.get("custom")),
        inputs=inputs,
        outputs=outputs,
        dependencies=tuple(resource.get("dependencies") or ()),
        # The command failed, or the creation failed because the container never became healthy.
        failed=bool(resource.get("initErrors")) or reader(inputs).command_failed(outputs),
        protect=bool(resource.get("protect")),
        retained=bool(resource.get("retainOnDelete")),
    )


def observe(checkpoint: Checkpoint) -> StackState:
    """Return the state of the stack from the checkpoint alone, for display.

    To plan an update use `settle`, which also reads the platform if the checkpoint is incomplete.
    """
    return _stack_state(checkpoint, live.likely(evidence(checkpoint)))


def settle(
    checkpoint: Checkpoint, read_routing: Callable[[], Routing], declared: Slot | bool | None = False, stack: str = ""
) -> StackState:
    """Return the state of the stack from the checkpoint. Read the platform only if the checkpoint alone is not enough.

    Args:
        checkpoint: checkpoint of the stack.
        read_routing: function that returns the slot that the platform routes users to.
        declared: slot that a person declares live by TIERS_LIVE; None for TIERS_LIVE=none; False if TIERS_LIVE is not set.
        stack: name of the stack, for errors.

    Raises:
        ReleaseError: checkpoint and platform together do not determine the live slot.
    """
    return _stack_state(checkpoint, live.decide(evidence(checkpoint), read_routing, declared, stack))


def _stack_state(checkpoint: Checkpoint, decision: live.Decision) -> StackState:
    slots = _slots(checkpoint)
    if decision.live and decision.live in slots:
        # The live release must have passed its gates, because only such a release goes live.
        slots[decision.live] = replace(slots[decision.live], proven=True)
    missing = decision.live is not None and last_switch(checkpoint, decision.live, decision.switches) is None
    return StackState(live=decision.live, slots=slots, switches=decision.switches, missing=missing)


def last_switch(checkpoint: Checkpoint, live: Slot, number: int) -> Entry | None:
    """Return the resource that made a switch, or None if this resource is missing or has failed.

    Skip retained resources, because they only restored an earlier switch.

    Args:
        checkpoint: checkpoint of the stack.
        live: the slot that the switch made live.
        number: number of the switch.
    """
    return next(
        (
            entry
            for entry in checkpoint.entries
            if entry.role == "switch" and not (entry.failed or entry.retained)
            if (_number(entry), entry.labels[LABEL_SLOT]) == (number, live)
        ),
        None,
    )


def evidence(checkpoint: Checkpoint) -> Evidence:
    """Return all statements in the checkpoint about the live slot."""
    switches = [entry for entry in checkpoint.entries if entry.role == "switch" and LABEL_SWITCH in entry.labels]
    slots = _slots(checkpoint)
    intent = _intent(checkpoint)
    refuted = intent is not None and intent.live is not None and _gate_failed(checkpoint, intent.live)
    return Evidence(
        switches=tuple(
            Claim(source=f"the switch {entry.name}", live=Slot(entry.labels[LABEL_SLOT]), switches=_number(entry))
            for entry in switches
            if not entry.failed
        ),
        records=(*_records(checkpoint, final=refuted), *_stack_outputs(checkpoint)),
        intent=None if refuted else intent,
        complete=checkpoint.find(SWITCH, "switch") is not None,
        failed=max((_number(entry) for entry in switches if entry.failed), default=0),
        switch_numbers={slot: state.order for slot, state in slots.items()},
        proven=frozenset(slot for slot, state in slots.items() if state.proven),
    )


def _number(switch: Entry) -> int:
    return int(switch.labels[LABEL_SWITCH])


def _records(checkpoint: Checkpoint, *, final: bool) -> Iterator[Claim]:
    """Yield the statements in the components `Slot` and `Switch` about the live slot.

    Args:
        checkpoint: checkpoint of the stack.
        final: True if the switch that the last update planned certainly did not happen.
    """
    for slot in Slot:
        entry = checkpoint.find(SLOT, slot)
        if entry and entry.outputs.get(SWITCHES):
            yield Claim(source=f"the outputs of Slot {slot}", live=slot, switches=int(entry.outputs[SWITCHES]))
    switch = checkpoint.find(SWITCH, "switch")
    if not switch:
        return
    if "live" in switch.outputs:
        number = _count(switch.outputs, switch.outputs.get("journal"))
        yield Claim(source="the outputs of Switch", live=_slot(switch.outputs["live"]), switches=number, final=True)
    if before := switch.inputs.get("before"):
        final = final or before["switches"] == switch.inputs.get(SWITCHES)
        yield Claim(
            source="the inputs of Switch", live=_slot(before["live"]), switches=int(before["switches"]), final=final
        )


def _stack_outputs(checkpoint: Checkpoint) -> Iterator[Claim]:
    """Yield the statement in the stack's outputs about the live slot.

    The statement may be outdated, because a failed update writes no outputs.
    """
    for entry in checkpoint.entries:
        if entry.type == STACK and "live" in entry.outputs:
            last = [entry.outputs["last_switch"]] if entry.outputs.get("last_switch") else []
            yield Claim(
                source="the stack's outputs", live=_slot(entry.outputs["live"]), switches=_count(entry.outputs, last)
            )


def _intent(checkpoint: Checkpoint) -> Claim | None:
    """Return the last planned switch from the inputs of the component `Switch`, or None if they name no live slot.

    Inputs of older versions of Tiers lack the number of the switch. Without the number, also return None if the switch has
    already happened.
    """
    switch = checkpoint.find(SWITCH, "switch")
    live = _slot(switch.inputs.get("live")) if switch else None
    if not switch or not live:
        return None
    number = switch.inputs.get(SWITCHES)
    if number is None:
        # Versions before ADR 021 stored no number, so calculate the number. If inputs and outputs name the same live slot,
        # the planned switch has already happened.
        settled = max((claim.switches for claim in (*_records(checkpoint, final=False),)), default=0)
        if _slot(switch.outputs.get("live")) is live:
            return None
        numbers = [_number(entry) for entry in checkpoint.entries if entry.role == "switch" and not entry.failed]
        stack = [claim.switches for claim in _stack_outputs(checkpoint)]
        number = max([settled, *numbers, *stack]) + 1
    return Claim(source="the last update", live=live, switches=int(number))


def _gate_failed(checkpoint: Checkpoint, slot: Slot) -> bool:
    """Return whether a task or the smoke test of a slot failed. After such a failure the slot's release did not go live.

    Failed containers of services don't count, because `pulumi refresh` marks a container as failed even if the container stopped
    long after the switch.
    """
    return any(entry.failed and entry.role in ("task", "smoke") for entry in checkpoint.descendants(slot, SLOT))


def _slot(value: object) -> Slot | None:
    return Slot(value) if value in [*Slot] else None


def _count(outputs: Mapping[str, Any], entries: Sequence[Mapping[str, Any]] | None) -> int:
    """Return the number of switches until now. If a slot is live, the result is at least 1.

    Args:
        outputs: outputs of the component `Switch` or of the stack.
        entries: journal entries from the same outputs.
    """
    numbers = [int(item["number"]) for item in entries or () if "number" in item]
    return max([int(outputs.get(SWITCHES) or 0), *numbers, 1 if _slot(outputs.get("live")) else 0])


def _slots(checkpoint: Checkpoint) -> dict[Slot, SlotState]:
    passed_smoke_tests = {
        (entry.labels[LABEL_SLOT], entry.labels[LABEL_RELEASE])
        for entry in checkpoint.entries
        if entry.role == "smoke" and not entry.failed
    }
    slots: dict[Slot, SlotState] = {}
    for slot in Slot:
        if entry := checkpoint.find(SLOT, slot):
            release = Release(
                version=entry.inputs["version"],
                digest=entry.inputs["digest"],
                parts=entry.inputs.get("parts") or {},
                routes=tuple(route_from_state(state) for state in entry.inputs.get("routes") or ()),
                contract=bool(entry.inputs.get("contract")),
            )
            proven = (slot, str(release)) in passed_smoke_tests or _was_proven(checkpoint, entry, release)
            slots[slot] = SlotState(release=release, proven=proven, order=int(entry.inputs.get("order") or 0))
    return slots


def _was_proven(checkpoint: Checkpoint, slot: Entry, release: Release) -> bool:
    """Return whether the output `proven` of `Slot` names the slot's release, and no smoke test of the slot failed.

    The output records that the release passed all gates, because the resource of a passed smoke test may be gone.
    """
    smoke = [entry for entry in checkpoint.entries if entry.role == "smoke" and entry.labels[LABEL_SLOT] == slot.name]
    return not any(entry.failed for entry in smoke) and slot.outputs.get("proven") == str(release)


def image_names(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the name of each image that a resource pulls or builds, by image id. Only Docker has such resources."""
    images = [entry for entry in entries if is_image(entry.type)]
    return {image: str(entry.inputs.get("name")) for entry in images if (image := entry.image_id)}


def suspended_entries(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the stored resources of a suspended slot: its deleted containers and its original routes.

    An update restores these resources when it resumes the slot.
    """
    entry = checkpoint.find(SLOT, slot)
    return tuple(entry_from_state(item) for item in (entry.inputs.get("rested") if entry else None) or ())


def live_object_states(checkpoint: Checkpoint, slot: Slot) -> Mapping[str, Mapping[str, Any]]:
    """Return the stored objects that only the live release has, by the name of their service. `LiveObject.from_state` reads them."""
    entry = checkpoint.find(SLOT, slot)
    return cast(Mapping[str, Mapping[str, Any]], (entry.outputs.get(LIVE_OBJECTS) if entry else None) or {})


def database_env(checkpoint: Checkpoint, slot: Slot) -> dict[str, str]:
    """Return the environment variables with the address and name of a slot's database; empty without a database.

    Read the variables from the slot's first container that has them. This may be a suspended container.
    """
    services = [
        item for item in (*checkpoint.descendants(slot, SLOT), *suspended_entries(checkpoint, slot)) if item.runs
    ]
    return next((env for item in services if (env := database_env_of(item))), dict[str, str]())


def database_env_of(entry: Entry) -> dict[str, str]:
    """Return a container's environment variables with the address and name of its database; empty without a database."""
    env = {name: value for name, value in entry.variables.items() if name in DATABASE.variables}
    return env if "DATABASE_HOST" in env else {}


def suspended_state(entry: Entry) -> dict[str, Any]:
    """Return a resource as a JSON object, to store in the inputs of a suspended slot's component."""
    return {
        "urn": entry.urn,
        "type": entry.type,
        "parent": entry.parent,
        "inputs": dict(entry.inputs),
        "dependencies": list(entry.dependencies),
    }


def entry_from_state(state: Mapping[str, Any]) -> Entry:
    """Return the entry that `suspended_state` or `memory.to_state` stored as a JSON object."""
    return Entry(
        urn=state["urn"],
        type=state["type"],
        parent=state["parent"],
        custom=bool(state.get("custom", True)),
        inputs=state.get("inputs") or {},
        outputs=state.get("outputs") or {},
        dependencies=tuple(state.get("dependencies") or ()),
        sealed=bool(state.get("sealed")),
    )
