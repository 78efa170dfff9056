"""What the stack's own checkpoint says is there: who is live, what each slot holds, what failed last time.

The checkpoint is written step by step, also by an update that fails later, and reads the same on every platform
(docs/adr/001-who-is-live.md). `Asked` calls the command line; everything else here is a pure function of its answer.
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
"""The variables that say which database is meant."""
SWITCHES = "switches"
"""Output of the switch's component, and of a slot that is live: the number of the switch that made it so."""


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
    """True if some of the inputs are secrets and left out."""
    retained: bool = False
    """True if the object stays on its platform when the checkpoint drops the resource."""

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    @property
    def labels(self) -> Mapping[str, str]:
        """As on either platform: a list of the container's, or the object's own."""
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
        """What its containers are told, on either platform."""
        pod = self.inputs.get("spec", {}).get("template", {}).get("spec", {})
        told = {each["name"]: each.get("value", "") for one in pod.get("containers", ()) for each in one.get("env", ())}
        return told | dict(str(each).split("=", 1) for each in self.inputs.get("envs") or ())

    @property
    def runs(self) -> bool:
        """Whether it keeps processes running: what a slot that rests does without."""
        return self.custom and self.role in ("tier", "autoscaler")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The resources the stack holds, parents first; and what an update was doing when it was cut off."""

    entries: tuple[Entry, ...] = ()
    pending: tuple[str, ...] = ()

    def below(self, name: str, type_: str) -> tuple[Entry, ...]:
        """Everything under the component of that name and type, parents first."""
        inside = {entry.urn for entry in self.entries if entry.name == name and entry.type == type_}
        found: list[Entry] = []
        for entry in self.entries:
            if entry.parent in inside:
                inside.add(entry.urn)
                found.append(entry)
        return tuple(found)

    def of(self, type_: str, name: str) -> Entry | None:
        """The resource of that type and name."""
        return next((entry for entry in self.entries if (entry.type, entry.name) == (type_, name)), None)

    def attempt(self, name: str) -> int:
        """Which try at the container `name` is due: one more than the last if that failed, else the last."""
        for entry in self.entries:
            if entry.custom and entry.name == name:
                return int(entry.labels.get(LABEL_ATTEMPT, "1")) + entry.failed
        return 1


class Asked:
    """The question for a stack's checkpoint, on its way since it was made: what is read meanwhile costs no time.

    It is asked in the project's folder, `root`: the program need not be there (`main` of Pulumi.yaml).
    """

    def __init__(self, stack: str, root: str) -> None:
        self._command = ["pulumi", "stack", "export", "--stack", stack]
        self._answer: Checkpoint | None = None
        try:
            self._process = subprocess.Popen(
                self._command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            raise RunError("pulumi: it is not on PATH, and the program reads its checkpoint with it; add it") from None

    def answer(self) -> Checkpoint:
        """The checkpoint, as `pulumi stack export` prints it (secrets stay encrypted).

        Raises:
            RunError: the Pulumi command line refuses.
        """
        if self._answer is None:
            out, errors = self._process.communicate()
            if self._process.returncode:
                raise RunError(f"`{' '.join(self._command)}` failed: {errors.strip()}")
            self._answer = parse(json.loads(out))
        return self._answer


def parse(export: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in the shape of `pulumi stack export` (apitype.DeploymentV3)."""
    deployment = cast(Mapping[str, Any], export.get("deployment") or {})
    resources = cast(Sequence[Mapping[str, Any]], deployment.get("resources") or ())
    pending = cast(Sequence[Mapping[str, Any]], deployment.get("pending_operations") or ())
    return Checkpoint(
        entries=tuple(_entry(resource) for resource in resources if not resource.get("delete")),
        pending=tuple(f"{each['type']} {each['resource']['urn'].rpartition('::')[2]}" for each in pending),
    )


def refuse_cut_off(checkpoint: Checkpoint) -> None:
    """A stack whose last update was killed is healed first: what it was doing may have happened or not.

    Raises:
        RunError: it was.
    """
    if checkpoint.pending:
        raise RunError(
            f"the last update was cut off while {', '.join(checkpoint.pending)}: run `make heal ENV={pulumi.get_stack()}` "
            "(it looks what is there, and puts it right), then this again"
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
    """Return the live slot and the release of each slot as the checkpoint alone says it, to show it to people.

    An update is planned by `settle`, which asks the platform where the checkpoint is incomplete.
    """
    return _observed(checkpoint, live.likely(evidence(checkpoint)))


def settle(
    checkpoint: Checkpoint, ask: Callable[[], Routing], named: Slot | bool | None = False, stack: str = ""
) -> Observed:
    """Return the live slot and the release of each slot; the platform is asked where the checkpoint is incomplete.

    Args:
        checkpoint: the stack's checkpoint.
        ask: returns the slot that the platform sends users to.
        named: as `live.decide` takes it.
        stack: the stack's name, for errors.

    Raises:
        ReleaseError: the sources contradict each other, or none of them knows.
    """
    return _observed(checkpoint, live.decide(evidence(checkpoint), ask, named, stack))


def _observed(checkpoint: Checkpoint, decision: live.Decision) -> Observed:
    held = _held(checkpoint)
    if decision.live and decision.live in held:
        # Only a release that passed its gates goes live.
        held[decision.live] = replace(held[decision.live], proven=True)
    missing = decision.live is not None and last_switch(checkpoint, decision.live, decision.switches) is None
    return Observed(live=decision.live, held=held, switches=decision.switches, missing=missing)


def last_switch(checkpoint: Checkpoint, live: Slot, number: int) -> Entry | None:
    """Return the switch of that number to that slot, unless it failed or only stood in for a lost one."""
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
    """Collect all that the checkpoint says about the live slot."""
    switches = [entry for entry in checkpoint.entries if entry.role == "switch" and LABEL_SWITCH in entry.labels]
    held = _held(checkpoint)
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
        orders={slot: each.order for slot, each in held.items()},
        proven=frozenset(slot for slot, each in held.items() if each.proven),
    )


def _number(switch: Entry) -> int:
    return int(switch.labels[LABEL_SWITCH])


def _records(checkpoint: Checkpoint, *, final: bool) -> Iterator[Claim]:
    """Read the claims of the switch's component. `final` if the switch it was to make last is known not to have happened."""
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
    """Read the claim of the stack's outputs: they are written by updates that end well, so they may be old."""
    for entry in checkpoint.entries:
        if entry.type == STACK and "live" in entry.outputs:
            last = [entry.outputs["last_switch"]] if entry.outputs.get("last_switch") else []
            yield Claim(
                source="the stack's outputs", live=_slot(entry.outputs["live"]), switches=_count(entry.outputs, last)
            )


def _intent(checkpoint: Checkpoint) -> Claim | None:
    """Read which slot was to go live by the last update that did something to a slot, as the inputs of Switch say."""
    switch = checkpoint.of(SWITCH, "switch")
    live = _slot(switch.inputs.get("live")) if switch else None
    if not switch or not live:
        return None
    number = switch.inputs.get(SWITCHES)
    if number is None:
        # As programs before ADR 021 wrote it: the outputs go when the inputs change, and come once traffic has moved.
        settled = max((claim.switches for claim in (*_records(checkpoint, final=False),)), default=0)
        if _slot(switch.outputs.get("live")) is live:
            return None
        numbers = [_number(entry) for entry in checkpoint.entries if entry.role == "switch" and not entry.failed]
        stack = [claim.switches for claim in _stack_outputs(checkpoint)]
        number = max([settled, *numbers, *stack]) + 1
    return Claim(source="the last update", live=live, switches=int(number))


def _gate_failed(checkpoint: Checkpoint, slot: Slot) -> bool:
    """Find a task or test of the slot that failed: then no switch to what the slot holds can have happened.

    Tiers are no evidence, for a refresh notes a container that stopped later in the same way.
    """
    return any(entry.failed and entry.role in ("task", "smoke") for entry in checkpoint.below(slot, SLOT))


def _slot(value: object) -> Slot | None:
    return Slot(value) if value in [*Slot] else None


def _count(outputs: Mapping[str, Any], entries: Sequence[Mapping[str, Any]] | None) -> int:
    """Return the number of switches in outputs that name a live slot; the first switch is number 1."""
    numbers = [int(each["number"]) for each in entries or () if "number" in each]
    return max([int(outputs.get(SWITCHES) or 0), *numbers, 1 if _slot(outputs.get("live")) else 0])


def _held(checkpoint: Checkpoint) -> dict[Slot, Held]:
    """Read the release of each slot, and which of them passed its gates."""
    smoked = {
        (entry.labels[LABEL_SLOT], entry.labels[LABEL_RELEASE])
        for entry in checkpoint.entries
        if entry.role == "smoke" and not entry.failed
    }
    held: dict[Slot, Held] = {}
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
            held[slot] = Held(release=release, proven=proven, order=int(entry.inputs.get("order") or 0))
    return held


def _was_proven(checkpoint: Checkpoint, slot: Entry, release: Release) -> bool:
    """Read from the slot's own facts that `release` passed its gates, where the smoke test itself is no longer there."""
    smoke = [entry for entry in checkpoint.entries if entry.role == "smoke" and entry.labels[LABEL_SLOT] == slot.name]
    return not any(entry.failed for entry in smoke) and slot.outputs.get("proven") == str(release)


def rested(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """What has run in a slot that now rests, to be run again as it was."""
    entry = checkpoint.of(SLOT, slot)
    return tuple(_recalled(each) for each in (entry.inputs.get("rested") if entry else None) or ())


def told(checkpoint: Checkpoint, slot: Slot) -> dict[str, str]:
    """What the tiers of a slot are told of the database, though they rest; nothing where none of them needs it."""
    there = [each for each in (*checkpoint.below(slot, SLOT), *rested(checkpoint, slot)) if each.runs]
    return next((found for each in there if (found := told_of_database(each))), dict[str, str]())


def told_of_database(entry: Entry) -> dict[str, str]:
    """What of a resource's variables says which database it uses; nothing where it uses none."""
    found = {name: value for name, value in entry.variables.items() if name in DATABASE}
    return found if "DATABASE_HOST" in found else {}


def remembered(entry: Entry) -> dict[str, Any]:
    """A resource in the form in which a slot that rests remembers it."""
    return {
        "urn": entry.urn,
        "type": entry.type,
        "parent": entry.parent,
        "inputs": dict(entry.inputs),
        "dependencies": list(entry.dependencies),
    }


def _recalled(found: Mapping[str, Any]) -> Entry:
    return Entry(
        urn=found["urn"],
        type=found["type"],
        parent=found["parent"],
        custom=True,
        inputs=found["inputs"],
        dependencies=tuple(found.get("dependencies") or ()),
    )
