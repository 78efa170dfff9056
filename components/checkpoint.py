"""What the stack's own checkpoint says is there: who is live, what each slot holds, what failed last time.

The checkpoint is written step by step, also by an update that fails later, and reads the same on every platform
(docs/adr/001-who-is-live.md). `Asked` calls the command line; everything else here is a pure function of its answer.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pulumi
from pulumi import RunError

from .names import LABEL_ATTEMPT, LABEL_COMPONENT, LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT, LABEL_SWITCH, LABEL_TIER
from .release import Held, Observed, Release, Slot, recalled

SLOT, SWITCH = "tiers:slot:Slot", "tiers:switch:Switch"
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
    """Whether some of the inputs are secrets, and left out."""

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
    )


def observe(checkpoint: Checkpoint) -> Observed:
    """Who is live and what each slot holds. A switch that failed has moved nothing that counts."""
    count, live = _live(checkpoint)
    smoked = {(entry.labels[LABEL_SLOT], entry.labels[LABEL_RELEASE]) for entry in _passed(checkpoint, "smoke")}
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
    return Observed(live=live, held=held, switches=count)


def _live(checkpoint: Checkpoint) -> tuple[int, Slot | None]:
    """Return the number of switches so far and the slot that is live, from the highest number that any place names.

    The switch itself says it; so do the outputs of its component, and of the slot that is live, which neither a refresh nor a
    clean-up of the engine takes away.
    """
    said = [
        (int(entry.labels[LABEL_SWITCH]), Slot(entry.labels[LABEL_SLOT])) for entry in _passed(checkpoint, "switch")
    ]
    component = checkpoint.of(SWITCH, "switch")
    if component and component.outputs.get("live"):
        journal = cast(Sequence[Mapping[str, Any]], component.outputs.get("journal") or ())
        number = component.outputs.get(SWITCHES) or (journal[-1]["number"] if journal else 0)
        said.append((int(number), Slot(component.outputs["live"])))
    for slot in Slot:
        entry = checkpoint.of(SLOT, slot)
        if entry and entry.outputs.get(SWITCHES):
            said.append((int(entry.outputs[SWITCHES]), slot))
    return max(said, default=(0, None), key=lambda each: each[0])


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


def _passed(checkpoint: Checkpoint, role: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in checkpoint.entries if entry.role == role and not entry.failed)
