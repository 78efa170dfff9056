"""The stack's own checkpoint: the live slot, the release of each slot, and failures of the last update.

Pulumi writes the checkpoint step by step, also during an update that fails later. It reads the same on every platform
(docs/adr/001-who-is-live.md). `Asked` calls the command line; everything else here is a pure function of the exported checkpoint.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pulumi
from pulumi import RunError

from . import live
from .live import Claim, Evidence, Routing
from .names import LABEL_ATTEMPT, LABEL_COMPONENT, LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT, LABEL_SWITCH, LABEL_TIER
from .release import Held, Observed, Release, Slot, recalled

SLOT, SWITCH, STACK = "tiers:slot:Slot", "tiers:switch:Switch", "pulumi:pulumi:Stack"
DATABASE = tuple(f"DATABASE_{part}" for part in ("HOST", "DIRECT_HOST", "READ_HOST", "PORT", "NAME", "USER"))
"""Environment variables that identify a database."""
SWITCHES = "switches"
"""Name of an output of the switch's component, and of a live slot: the number of the switch that made the slot live."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One resource of the checkpoint."""

    urn: str
    type: str
    parent: str
    custom: bool
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dependencies: tuple[str, ...] = ()
    failed: bool = False
    protect: bool = False
    sealed: bool = False
    """True if some inputs are secrets and left out."""
    retained: bool = False
    """True if the object stays on its platform when the checkpoint drops the resource."""

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels on either platform: the list of a Docker resource, or the metadata of a Kubernetes object."""
        if "metadata" in self.inputs:
            return cast(Mapping[str, str], self.inputs["metadata"].get("labels") or {})
        return {str(label["label"]): str(label["value"]) for label in self.inputs.get("labels") or ()}

    @property
    def role(self) -> str | None:
        return self.labels.get(LABEL_ROLE)

    @property
    def tier(self) -> str | None:
        return self.labels.get(LABEL_TIER) or self.labels.get(LABEL_COMPONENT)

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables of its containers, on either platform."""
        pod = self.inputs.get("spec", {}).get("template", {}).get("spec", {})
        env = {var["name"]: var.get("value", "") for one in pod.get("containers", ()) for var in one.get("env", ())}
        return env | dict(str(item).split("=", 1) for item in self.inputs.get("envs") or ())

    @property
    def runs(self) -> bool:
        """True if it keeps processes running. A suspended slot has none of these resources."""
        return self.custom and self.role in ("tier", "autoscaler")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The resources of a stack, parents first, and the pending operations of an interrupted update."""

    entries: tuple[Entry, ...] = ()
    pending: tuple[str, ...] = ()

    def below(self, name: str, type_: str) -> tuple[Entry, ...]:
        """Return all resources below the component of that name and type, parents first."""
        inside = {entry.urn for entry in self.entries if entry.name == name and entry.type == type_}
        resources: list[Entry] = []
        for entry in self.entries:
            if entry.parent in inside:
                inside.add(entry.urn)
                resources.append(entry)
        return tuple(resources)

    def of(self, type_: str, name: str) -> Entry | None:
        """Return the resource of that type and name, or None."""
        return next((entry for entry in self.entries if (entry.type, entry.name) == (type_, name)), None)

    def attempt(self, name: str) -> int:
        """Return the attempt number for the container `name`: the last one, plus one if that failed."""
        for entry in self.entries:
            if entry.custom and entry.name == name:
                return int(entry.labels.get(LABEL_ATTEMPT, "1")) + entry.failed
        return 1


class Asked:
    """A running export of a stack's checkpoint. It starts with the object, so other work done before `answer` costs no time.

    The command runs in the project's folder, `root`, which may differ from the program's (`main` of Pulumi.yaml).
    """

    def __init__(self, stack: str, root: str) -> None:
        self._command = ["pulumi", "stack", "export", "--stack", stack]
        self._answer: Checkpoint | None = None
        try:
            self._process = subprocess.Popen(
                self._command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            raise RunError(
                "pulumi: it is not on PATH, and the program reads its checkpoint with it; add it to PATH"
            ) from None

    def answer(self) -> Checkpoint:
        """Return the checkpoint, as `pulumi stack export` prints it (secrets stay encrypted).

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


def refuse_cut_off(checkpoint: Checkpoint) -> None:
    """Refuse a stack whose last update was killed. Its pending operations may have happened or not, so it must be healed first.

    Raises:
        RunError: the checkpoint has pending operations.
    """
    if checkpoint.pending:
        raise RunError(
            f"the last update was cut off while {', '.join(checkpoint.pending)}: run `make heal ENV={pulumi.get_stack()}` "
            "(it compares the state with the platform and repairs it), then repeat this command"
        )


def _entry(resource: Mapping[str, Any]) -> Entry:
    outputs = cast(Mapping[str, Any], resource.get("outputs") or {})
    return Entry(
        urn=resource["urn"],
        type=resource["type"],
        parent=resource.get("parent", ""),
        custom=bool(resource.get("custom")),
        inputs=resource.get("inputs") or {},
        outputs=outputs,
        dependencies=tuple(resource.get("dependencies") or ()),
        # An exit code that isn't 0, or a creation that ended in an error (a container that never became healthy).
        failed=bool(resource.get("initErrors")) or outputs.get("exitCode") not in (None, 0),
        protect=bool(resource.get("protect")),
        retained=bool(resource.get("retainOnDelete")),
    )


def observe(checkpoint: Checkpoint) -> Observed:
    """Return the live slot and the release of each slot from the checkpoint alone, for display.

    An update is planned with `settle`, which also reads the platform where the checkpoint is incomplete.
    """
    return _observed(checkpoint, live.likely(evidence(checkpoint)))


def settle(
    checkpoint: Checkpoint, ask: Callable[[], Routing], named: Slot | bool | None = False, stack: str = ""
) -> Observed:
    """Return the live slot and the release of each slot. The platform is read where the checkpoint is incomplete.

    Args:
        checkpoint: the stack's checkpoint.
        ask: reads the slot that the platform routes users to.
        named: as `live.decide` takes it.
        stack: the stack's name, for errors.

    Raises:
        ReleaseError: the sources contradict each other, or none is certain.
    """
    return _observed(checkpoint, live.decide(evidence(checkpoint), ask, named, stack))


def _observed(checkpoint: Checkpoint, decision: live.Decision) -> Observed:
    slots = _slots(checkpoint)
    if decision.live and decision.live in slots:
        # Only a release that passed its gates goes live.
        slots[decision.live] = replace(slots[decision.live], proven=True)
    missing = decision.live is not None and last_switch(checkpoint, decision.live, decision.switches) is None
    return Observed(live=decision.live, held=slots, switches=decision.switches, missing=missing)


def last_switch(checkpoint: Checkpoint, live: Slot, number: int) -> Entry | None:
    """Return switch `number` to slot `live`, or None if it is missing, failed, or only replaced a lost switch."""
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
    """Return everything that the checkpoint says about the live slot."""
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
        complete=checkpoint.of(SWITCH, "switch") is not None,
        failed=max((_number(entry) for entry in switches if entry.failed), default=0),
        orders={slot: state.order for slot, state in slots.items()},
        proven=frozenset(slot for slot, state in slots.items() if state.proven),
    )


def _number(switch: Entry) -> int:
    return int(switch.labels[LABEL_SWITCH])


def _records(checkpoint: Checkpoint, *, final: bool) -> Iterator[Claim]:
    """Yield the claims of the slots' and the switch's components.

    `final` is true if the switch that the last update planned is known not to have happened.
    """
    for slot in Slot:
        entry = checkpoint.of(SLOT, slot)
        if entry and entry.outputs.get(SWITCHES):
            yield Claim(source=f"the outputs of Slot {slot}", live=slot, switches=int(entry.outputs[SWITCHES]))
    switch = checkpoint.of(SWITCH, "switch")
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
    """Yield the claim of the stack's outputs. Only a successful update writes them, so they may be outdated."""
    for entry in checkpoint.entries:
        if entry.type == STACK and "live" in entry.outputs:
            last = [entry.outputs["last_switch"]] if entry.outputs.get("last_switch") else []
            yield Claim(
                source="the stack's outputs", live=_slot(entry.outputs["live"]), switches=_count(entry.outputs, last)
            )


def _intent(checkpoint: Checkpoint) -> Claim | None:
    """Return the switch that the last update to change a slot planned, as the inputs of Switch record it."""
    switch = checkpoint.of(SWITCH, "switch")
    live = _slot(switch.inputs.get("live")) if switch else None
    if not switch or not live:
        return None
    number = switch.inputs.get(SWITCHES)
    if number is None:
        # Programs before ADR 021 stored no number: outputs vanished when the inputs changed, and returned once traffic had moved.
        settled = max((claim.switches for claim in (*_records(checkpoint, final=False),)), default=0)
        if _slot(switch.outputs.get("live")) is live:
            return None
        numbers = [_number(entry) for entry in checkpoint.entries if entry.role == "switch" and not entry.failed]
        stack = [claim.switches for claim in _stack_outputs(checkpoint)]
        number = max([settled, *numbers, *stack]) + 1
    return Claim(source="the last update", live=live, switches=int(number))


def _gate_failed(checkpoint: Checkpoint, slot: Slot) -> bool:
    """Tell whether a task or the smoke test of the slot failed. If so, no switch to its release can have happened.

    Tiers are no evidence: a refresh marks a container that stopped later in the same way.
    """
    return any(entry.failed and entry.role in ("task", "smoke") for entry in checkpoint.below(slot, SLOT))


def _slot(value: object) -> Slot | None:
    return Slot(value) if value in [*Slot] else None


def _count(outputs: Mapping[str, Any], entries: Sequence[Mapping[str, Any]] | None) -> int:
    """Return the number of switches that these outputs record. The first switch is number 1."""
    numbers = [int(item["number"]) for item in entries or () if "number" in item]
    return max([int(outputs.get(SWITCHES) or 0), *numbers, 1 if _slot(outputs.get("live")) else 0])


def _slots(checkpoint: Checkpoint) -> dict[Slot, Held]:
    """Return the release of each slot, and whether it passed its gates."""
    smoked = {
        (entry.labels[LABEL_SLOT], entry.labels[LABEL_RELEASE])
        for entry in checkpoint.entries
        if entry.role == "smoke" and not entry.failed
    }
    slots: dict[Slot, Held] = {}
    for slot in Slot:
        if entry := checkpoint.of(SLOT, slot):
            release = Release(
                version=entry.inputs["version"],
                digest=entry.inputs["digest"],
                parts=entry.inputs.get("parts") or {},
                routes=recalled(entry.inputs.get("routes") or ()),
                contract=bool(entry.inputs.get("contract")),
            )
            proven = (slot, str(release)) in smoked or _was_proven(checkpoint, entry, release)
            slots[slot] = Held(release=release, proven=proven, order=int(entry.inputs.get("order") or 0))
    return slots


def _was_proven(checkpoint: Checkpoint, slot: Entry, release: Release) -> bool:
    """Tell whether the slot's own outputs record that `release` passed its gates, in case the smoke test is gone."""
    smoke = [entry for entry in checkpoint.entries if entry.role == "smoke" and entry.labels[LABEL_SLOT] == slot.name]
    return not any(entry.failed for entry in smoke) and slot.outputs.get("proven") == str(release)


def rested(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the resources that ran in a slot before it was suspended, to recreate them."""
    entry = checkpoint.of(SLOT, slot)
    return tuple(_recalled(item) for item in (entry.inputs.get("rested") if entry else None) or ())


def told(checkpoint: Checkpoint, slot: Slot) -> dict[str, str]:
    """Return the database variables of a slot's tiers, also of a suspended slot. Empty if no tier needs a database."""
    tiers = [item for item in (*checkpoint.below(slot, SLOT), *rested(checkpoint, slot)) if item.runs]
    return next((env for item in tiers if (env := told_of_database(item))), dict[str, str]())


def told_of_database(entry: Entry) -> dict[str, str]:
    """Return the variables of a resource that identify its database. Empty if it uses none."""
    env = {name: value for name, value in entry.variables.items() if name in DATABASE}
    return env if "DATABASE_HOST" in env else {}


def remembered(entry: Entry) -> dict[str, Any]:
    """Return a resource in the form in which a suspended slot stores it."""
    return {
        "urn": entry.urn,
        "type": entry.type,
        "parent": entry.parent,
        "inputs": dict(entry.inputs),
        "dependencies": list(entry.dependencies),
    }


def _recalled(stored: Mapping[str, Any]) -> Entry:
    return Entry(
        urn=stored["urn"],
        type=stored["type"],
        parent=stored["parent"],
        custom=True,
        inputs=stored["inputs"],
        dependencies=tuple(stored.get("dependencies") or ()),
    )
