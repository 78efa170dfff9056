"""Preview of an update as a comment for a pull request: `python -m ci.preview STACK [FILE]`.

FILE is the output of `pulumi preview --json --show-sames`; without it the command is run. The comment is posted to
the pull request that GITHUB_TOKEN, GITHUB_REPOSITORY and PR_NUMBER name, in place of the stack's last comment.
Without them it is printed. The command exits with 1 if the preview failed; the comment then says why.

The plan is not parsed from log messages. The resources before and after the update are each read as a checkpoint, by
the function that the program plans with. This needs `--show-sames`: otherwise a preview omits unchanged resources,
such as those of the live slot. docs/pull-requests.md
"""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import requests
from pulumi import RunError

from components import checkpoint
from components.checkpoint import LABEL_RELEASE, LABEL_SLOT, Checkpoint, Entry
from components.release import Observed, Plan, Release, Slot, differences

from . import edge
from .described import ROOT

LIMIT = 65_536
"""Maximum characters of a comment on GitHub."""
POSTED_TO = ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "PR_NUMBER")
"""Variables that together name the pull request."""
SHARE = LIMIT // 8
"""Maximum characters of a list in the comment: errors, dangers, changes in place, warnings."""
SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key that marks a value in Pulumi's JSON that is not plain, such as a secret."""
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Value in a preview that is known only after the update."""
SECRET = "[secret]"  # noqa: S105
WIDTH, ITEMS = 120, 12
"""Maximum characters of a value (WIDTH), and of items named in one line (ITEMS)."""

_ALWAYS_SECRET = {"kubernetes:core/v1:Secret": ("data", "stringData"), "docker:index/container:Container": ("uploads",)}
_SECRET_VARIABLE = re.compile(
    r"envs?\[\w*(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE_?KEY)\w*(?<!_FILE)\]"
)
_LOGIN = re.compile(r"(://)[^/\s:@]+:[^/\s@]+@")
_OWN_WORDS = re.compile(
    r"label|metadata\.name|^name$|aliases|replicas$|\[(RELEASE|SLOT)\]|secrets\].*(items|path|readonly|mode)|volumes\[secrets\]\.name$",
    re.IGNORECASE,
)
"""Paths of a tier's inputs that are left out: they always differ between slots, are no part of a release, or repeat others."""
_AGAIN = re.compile(r"error: (preview failed|an unhandled error occurred: program exited .*)")


# ---------------------------------------------------------------------- what a preview says


class Op(IntEnum):
    """Operation on a resource, in order of gravity."""

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
    """Part of the stack that a resource belongs to, the most critical first."""

    DATA = "data"
    SHARED = "shared"
    SWITCH = "switch"
    SLOT = "slot"


class Verdict(StrEnum):
    """Summary of all changes of a preview."""

    NONE = "no change"
    RELEASE = "release only"
    PLACE = "changes in place"
    """Changes besides a release that neither touch nor lose data: the live slot's scale, a quota, the gateway."""
    DATA = "touches data"
    LOSS = "replaces or deletes"
    """Replaces or deletes a resource that both slots share. The slot of a release is always replaced and does not count."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Operation on one resource. `unprotected` is True if the update removes its protection from deletion."""

    op: Op
    old: Entry | None
    new: Entry | None
    reasons: tuple[str, ...] = ()
    unprotected: bool = False

    @property
    def entry(self) -> Entry:
        entry = self.new or self.old
        assert entry
        return entry

    @property
    def kind(self) -> str:
        return self.entry.type.rpartition(":")[2]

    @property
    def text(self) -> str:
        return f"{self.kind} `{plain(self.entry.name)}`"

    @property
    def volume(self) -> bool:
        """True for a volume with users' data. Volumes of secrets are filled by the update itself."""
        return self.kind in ("Volume", "PersistentVolumeClaim") and "-secrets-" not in self.entry.name

    @property
    def _component(self) -> str:
        return self.entry.urn.split("::")[2].partition("$")[0]

    @property
    def area(self) -> Area:
        if self._component == checkpoint.SLOT:
            return Area.SLOT
        if self.volume or self._component in ("tiers:database:Database", "tiers:cache:Cache"):
            return Area.DATA
        return Area.SWITCH if self._component == checkpoint.SWITCH else Area.SHARED

    @property
    def owner(self) -> str:
        """Tier or component of the resource, such as `database`, `gateway` or, for the base resources, `ground`."""
        return (self.entry.tier if self.area is Area.SLOT else None) or self._component.rpartition(":")[2].lower()

    @property
    def slot(self) -> str:
        return self.entry.parent.rpartition("::")[2].partition("-")[0] if self.area is Area.SLOT else ""

    @property
    def lost(self) -> bool:
        """True if a shared resource is replaced or deleted. Images do not count, because they stay on the engine."""
        shared = self.area in (Area.DATA, Area.SHARED)
        return shared and self.op in (Op.REPLACE, Op.DELETE) and self.kind != "RemoteImage"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Changes of an update. Entries and changes are sorted by URN, so that the result does not depend on the engine's order."""

    stack: str
    changes: tuple[Change, ...]
    before: Checkpoint
    after: Checkpoint
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def observed(self) -> Observed:
        return checkpoint.observe(self.before)

    @property
    def plan(self) -> Plan | None:
        """Plan of the slots, or None if the preview did not get that far."""
        after, before_state = checkpoint.observe(self.after), self.observed
        if not after.live:
            return None
        render = next((slot for slot in Slot if slot in after.held and not _kept(slot, before_state, after)), None)
        target = render or after.live
        return Plan(
            live=after.live,
            release=after.held[target].release,
            render=render,
            keep=tuple(slot for slot in Slot if slot in after.held and slot is not render),
            switches=after.switches,
            previous=before_state.live,
            waits=render is not None and after.live is before_state.live,
        )

    @property
    def verdict(self) -> Verdict:
        """Gravest verdict of any change."""
        touched = [change for change in self.changes if change.op or change.unprotected]
        if any(change.lost for change in touched):
            return Verdict.LOSS
        if any(change.area is Area.DATA for change in touched):
            return Verdict.DATA
        plan = self.plan
        released = plan is not None and (plan.render is not None or plan.moves)
        if any(change.area is Area.SHARED or not released for change in touched):
            return Verdict.PLACE
        return Verdict.RELEASE if released else Verdict.NONE


def _kept(slot: Slot, now: Observed, then: Observed) -> bool:
    before = now.held.get(slot)
    return before is not None and before.release == then.held[slot].release and (before.proven or slot is now.live)


def read(told: Mapping[str, Any], stack: str) -> Preview:
    """Return the preview from the JSON of `pulumi preview --json --show-sames`. All secrets are masked here."""
    steps: dict[str, list[Mapping[str, Any]]] = {}
    for step in cast(Sequence[Mapping[str, Any]], told.get("steps") or ()):
        steps.setdefault(step["urn"], []).append(step)
    groups = [group for _, group in sorted(steps.items())]
    before, after = _entries(map(_before, groups)), _entries(map(_after, groups))
    old, new = ({entry.urn: entry for entry in state.entries} for state in (before, after))
    changes = (_change(urn, group, old.get(urn), new.get(urn)) for urn, group in sorted(steps.items()))
    diagnostics = [(diagnostic["severity"], diagnostic["message"]) for diagnostic in told.get("diagnostics") or ()]
    return Preview(
        stack=stack,
        changes=tuple(change for change in changes if change.entry.custom),
        before=before,
        after=after,
        errors=tuple(_messages(text for severity, text in diagnostics if severity == "error")),
        warnings=tuple(_messages(text for severity, text in diagnostics if severity == "warning")),
    )


def _op(group: Sequence[Mapping[str, Any]]) -> Op:
    """Return the overall operation of several steps. A replacement may take several; an unknown step counts as an update."""
    ops = {_OPS.get(step["op"], Op.UPDATE) for step in group}
    return Op.REPLACE if {Op.CREATE, Op.DELETE} <= ops else max(ops)


def _before(group: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return _state(group, "oldState")


def _after(group: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the state after the update. An unchanged resource keeps its old state, as its new one lacks the engine's values."""
    op = _op(group)
    if op is Op.DELETE:
        return None
    return _state(group, "newState") if op else _before(group) or _state(group, "newState")


def _state(group: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    state = next((step[name] for step in group if step.get(name)), None)
    if not state:
        return None
    hidden = {*(state.get("additionalSecretOutputs") or ()), *_ALWAYS_SECRET.get(state["type"], ())}
    return {**state, "inputs": masked(state.get("inputs") or {}, hidden), "outputs": state.get("outputs") or {}}


def _entries(states: Iterable[Mapping[str, Any] | None]) -> Checkpoint:
    return checkpoint.parse({"deployment": {"resources": [state for state in states if state]}})


def _change(urn: str, group: Sequence[Mapping[str, Any]], old: Entry | None, new: Entry | None) -> Change:
    states = ([cast(Mapping[str, Any], step.get(name) or {}) for step in group] for name in ("oldState", "newState"))
    protected = [any(state.get("protect") for state in side) for side in states]
    return Change(
        op=_op(group),
        old=old
        or (None if new else Entry(urn=urn, type=urn.split("::")[2].rpartition("$")[2], parent="", custom=True)),
        new=new,
        reasons=tuple(sorted({reason for step in group for reason in step.get("replaceReasons") or ()})),
        unprotected=protected == [True, False] and new is not None,
    )


def _messages(texts: Iterable[str]) -> Iterator[str]:
    """Yield each message once, without those that only repeat that an error occurred."""
    for text in dict.fromkeys(text.strip() for text in texts):
        if not _AGAIN.fullmatch(text):
            yield _LOGIN.sub(rf"\1{SECRET}@", text.removeprefix("error: "))


def masked(value: Any, hidden: Iterable[str] = ()) -> Any:
    """Return a value without secrets: those that Pulumi marks, values below a `hidden` key, and logins in URLs."""
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value)
        return SECRET if SIGNATURE in pairs else {k: SECRET if k in hidden else masked(v) for k, v in pairs.items()}
    if isinstance(value, list):
        return [masked(item) for item in cast(list[Any], value)]
    return _LOGIN.sub(rf"\1{SECRET}@", value) if isinstance(value, str) else value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and value as text of all inputs. Members of a list are addressed by name if they have one."""
    if isinstance(value, Mapping):
        for key, item in sorted(cast(Mapping[str, Any], value).items()):
            if key != "__defaults":
                yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for key, item in _named(cast(list[Any], value), path):
            yield from leaves(item, f"{path}[{key}]" if key else path)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        text = "(known after the update)" if text == UNKNOWN else text
        yield path, SECRET if _SECRET_VARIABLE.search(path) else text


def _named(members: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    if path.endswith("envs"):
        yield from ((name, value) for name, _, value in (str(member).partition("=") for member in members))
    elif not any(isinstance(member, Mapping | list) for member in members):
        yield "", " ".join(map(str, members))
    else:
        pairs = [cast(Mapping[str, Any], member if isinstance(member, Mapping) else {}) for member in members]
        # Mounts have two candidate keys; only the path is unique.
        keys = ("label", "containerPath", "mountPath", "name")
        unique = (key for key in keys if len({str(pair[key]) for pair in pairs if key in pair}) == len(pairs))
        key = next(unique, None)
        for number, (member, given) in enumerate(zip(members, pairs, strict=True)):
            only_value = key in given and given.keys() - {key, "__defaults"} == {"value"}
            yield str(given.get(key, number) if key else number), given["value"] if only_value else member


# ---------------------------------------------------------------------- what is dangerous


def dangers(preview: Preview) -> list[str]:
    """Return the dangerous changes of a preview, in Markdown."""
    return [*_losses(preview), *_unprotected(preview), *_opened(preview)]


def _losses(preview: Preview) -> Iterator[str]:
    lost: dict[tuple[bool, str, Op], list[Change]] = {}
    for change in preview.changes:
        if change.lost:
            lost.setdefault((change.area is not Area.DATA, change.owner, change.op), []).append(change)
    for (_, owner, op), changes in sorted(lost.items()):
        # Data comes first, because it can't be restored by another update.
        names = [f"{change.text} **with its data**" if change.volume else change.text for change in changes]
        names.sort(key=lambda name: "**" not in name)
        yield f"**{owner} is {op.word}**, and both slots share it: {listed(names)}"


def _unprotected(preview: Preview) -> Iterator[str]:
    if names := [change.text for change in preview.changes if change.unprotected]:
        yield f"**protection removed**: the next update may delete {listed(names)}"


def _opened(preview: Preview) -> Iterator[str]:
    routes_after, routes_before = (
        {route for entry in state.entries for route in _ways(entry)} for state in (preview.after, preview.before)
    )
    for category, route in sorted(routes_after - routes_before):
        yield f"**{category}**: {route}"
    barriers_before = {barrier for entry in preview.before.entries for barrier in _barriers(entry)}
    for barrier in sorted(
        barriers_before - {barrier for entry in preview.after.entries for barrier in _barriers(entry)}
    ):
        yield f"**network opened**: {barrier} no more"


def _ways(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield category and text for each connection that a resource allows.

    The slot is left out of names: a release allows the same connections as the one before.
    """
    exposed, network_opened = "public exposure", "network opened"
    inputs, spec = entry.inputs, cast(dict[str, Any], entry.inputs.get("spec") or {})
    slot = entry.labels.get(LABEL_SLOT, "")
    name = f"`{plain(entry.name.replace(f'-{slot}', '') if slot else entry.name)}`"
    for port in inputs.get("ports") or ():
        if port.get("ip") != "127.0.0.1":
            yield (
                exposed,
                f"{name} listens on {port.get('ip') or 'every address'}, port {port.get('external')}, of the host",
            )
    if entry.role in ("tier", "task") and entry.tier:
        for network in inputs.get("networksAdvanced") or ():
            if str(network["name"]).endswith("-outside"):
                yield network_opened, f"{entry.tier} may connect to the world outside"
    if entry.type.endswith(":NetworkPolicy"):
        yield from ((network_opened, f"NetworkPolicy {name} {way}") for way in _peers(spec))
    if entry.type.endswith(":Service") and spec.get("type", "ClusterIP") not in ("ClusterIP", "ExternalName"):
        yield exposed, f"Service {name} is a {spec['type']}"
    if entry.type.endswith((":HTTPRoute", ":Gateway")) and entry.custom:
        listeners = [listener.get("hostname") or "any host" for listener in spec.get("listeners") or ()]
        yield from (
            (exposed, f"users reach it as `{plain(host)}`") for host in [*(spec.get("hostnames") or ()), *listeners]
        )


def _peers(spec: Mapping[str, Any]) -> Iterator[str]:
    for rules, peers, verb in (("ingress", "from", "lets in"), ("egress", "to", "lets out to")):
        for rule in spec.get(rules) or ():
            if not rule.get(peers):
                yield f"{verb} everything"
            for peer in rule.get(peers) or ():
                cidr = str(cast(Mapping[str, Any], peer.get("ipBlock") or {}).get("cidr", ""))
                if cidr and not cidr.startswith("169.254."):  # addresses of the node itself
                    yield f"{verb} {cidr}"


def _barriers(entry: Entry) -> Iterator[str]:
    inputs, name = entry.inputs, plain(entry.name)
    if entry.type.endswith(":Network") and inputs.get("internal"):
        yield f"network `{name}` is closed to the outside"
    if entry.type.endswith(":NetworkPolicy") and inputs["spec"].get("ingress") == inputs["spec"].get("egress") == []:
        yield f"NetworkPolicy `{name}` denies all that no other allows"
    if level := entry.labels.get("pod-security.kubernetes.io/enforce"):
        yield f"namespace `{name}` enforces Pod Security {level}"


# ---------------------------------------------------------------------- the comment


def comment(preview: Preview) -> str:
    """Return the comment in Markdown, shorter than `LIMIT`. The full diff is cut to the space that is left."""
    parts = [marker(preview.stack), _headline(preview), *_problems(preview), *_release(preview), *_picture(preview)]
    parts += [*_list(dangers(preview)), *_list(_in_place(preview)), *_list(_warnings(preview))]
    head = "\n\n".join(parts) + "\n"
    return head + _details(preview, LIMIT - len(head))


def _headline(preview: Preview) -> str:
    count_by_op = Counter(change.op for change in preview.changes)
    counts = ", ".join(f"{count_by_op[op]} {op.word}" for op in [*[*Op][1:], Op.SAME] if count_by_op[op])
    if not preview.errors:
        return f"**{preview.stack}: {preview.verdict}** ({counts or 'nothing is there'})"
    prefix = f"{preview.verdict}, and " if preview.verdict is not Verdict.NONE else ""
    return f"**{preview.stack}: {prefix}the preview failed**" + (f" (as far as it got: {counts})" if counts else "")


def _problems(preview: Preview) -> Iterator[str]:
    if preview.errors:
        lines = [short(line, 4 * WIDTH) for line in "\n\n".join(preview.errors).splitlines()]
        yield "\n".join(["```text", *_fitting(lines, SHARE, "({} more lines are left out)"), "```"])


def _list(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines as one Markdown list, or nothing if there are none."""
    if lines := [f"- {line}" for line in lines]:
        yield "\n".join(_fitting(lines, SHARE, "- and {} more like these"))


def _fitting(texts: Sequence[str], room: int, rest: str) -> list[str]:
    """Return the texts that fit into `room` characters; if some do not, `rest` is added with their number."""
    fits = sum(size <= room for size in accumulate(len(text) + 1 for text in texts))
    return [*texts[:fits], *([rest.format(len(texts) - fits)] if fits < len(texts) else [])]


def _in_place(preview: Preview) -> Iterator[str]:
    """Yield the changes of resources that stay, except in a slot that is deployed anew."""
    plan = preview.plan
    for change in preview.changes:
        switched = change.area is Area.SWITCH or (plan and plan.render and change.slot == plan.render)
        if change.op is Op.UPDATE and not switched:
            facts = [f"{plain(path)} {was} → {now}" for path, was, now in _differences(change.old, change.new)]
            yield f"{change.text} changes in place: {listed(facts) or 'the preview does not say what'}"


def _differences(old: Entry | None, new: Entry | None) -> Iterator[tuple[str, str, str]]:
    before, after = (dict(leaves(entry.inputs)) if entry else {} for entry in (old, new))
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield path, *_sides(before.get(path, ""), after.get(path, ""))


def _sides(old: str, new: str) -> tuple[str, str]:
    """Return both values as code. Long values begin shortly before their first difference."""
    first = next((at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), 0)
    start = first - 20 if first > WIDTH // 2 else 0
    old_text, new_text = (
        f"`{plain(short(('…' if start else '') + side[start:], WIDTH // 2))}`" if side else "nothing"
        for side in (old, new)
    )
    return old_text, new_text


def _warnings(preview: Preview) -> Iterator[str]:
    yield from (f"warning: `{plain(text)}`" for text in preview.warnings)


def _release(preview: Preview) -> Iterator[str]:
    plan, observed = preview.plan, preview.observed
    live = observed.held.get(observed.live) if observed.live else None
    if plan and (plan.render or plan.moves):
        rows = [*_slot(plan, observed), *_content(preview, plan, live.release if live else None)]
        rows.append(("goes live", _promotion(preview, plan)))
        yield "\n".join(["| release | |", "|---|---|", *(f"| {what} | {text} |" for what, text in rows)])
    elif observed.waiting and observed.live and observed.standby:
        release = observed.standby.release
        yield f"{release} waits on {observed.live.other} to be promoted: `make promote ENV={preview.stack}`"


def _slot(plan: Plan, observed: Observed) -> Iterator[tuple[str, str]]:
    if plan.render:
        replaced = observed.held.get(plan.render)
        yield "slot", f"{plan.render}: {replaced.release if replaced else 'empty'} → **{plan.release}**"
    if observed.live and observed.live in observed.held:
        until = "stays live" if plan.waits else "is live until the switch"
        yield "live", f"{observed.live}: {observed.held[observed.live].release} {until}"


def _content(preview: Preview, plan: Plan, live: Release | None) -> Iterator[tuple[str, str]]:
    if not plan.render:
        return
    parts = differences(live.parts if live else {}, plan.release.parts)
    if live:
        yield "differs from live", "<br>".join(_part(preview, plan, part) for part in parts) or "its version only"
    migrations = [f"`{part}`" for part in plan.release.parts if part.endswith(".migrate")]
    breaks = ". **contract: it breaks the release before it, and going back past it is refused**"
    yield "migration", (listed(migrations) or "none") + (breaks if plan.release.contract else "")


def _part(preview: Preview, plan: Plan, part: str) -> str:
    """Return a part of the release that differs from the live one, with the differences that the preview knows."""
    assert plan.previous
    assert plan.render
    old, new = (
        _facts(state, part, slot) for state, slot in ((preview.before, plan.previous), (preview.after, plan.render))
    )
    changes: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        (old_value, old_plain), (new_value, new_plain) = old.get(name, ("", "")), new.get(name, ("", ""))
        if old_plain != new_plain:
            changes.append(f"{plain(name)} {' → '.join(_sides(old_value, new_value))}")
    return f"**{part}**" + (f": {listed(changes, '; ')}" if changes else "")


def _facts(state: Checkpoint, tier: str, slot: Slot) -> dict[str, tuple[str, str]]:
    """Return name → value, and value without slot and release, of the inputs of a tier's running resource in a slot."""
    runs = (e for e in state.entries if e.runs and e.tier == tier and e.labels.get(LABEL_SLOT) == slot)
    entry = next((entry for entry in runs if not entry.type.endswith("Autoscaler")), None)
    if not entry:
        return {}
    facts: dict[str, str] = {}
    for path, value in leaves(entry.inputs):
        if not _OWN_WORDS.search(path):
            facts[name] = f"{facts[name]} {value}" if (name := _brief(path)) in facts else value
    # The engine names an image by its id; people know its name.
    images = [name for urn in entry.dependencies if (name := urn.rpartition(f"{slot}-image-")[2]) != urn]
    facts |= {"image": images[0]} if len(images) == 1 else {}
    release = entry.labels.get(LABEL_RELEASE, "")
    return {name: (value, value.replace(release, "").replace(f"-{slot}", "")) for name, value in facts.items()}


def _brief(path: str) -> str:
    path = re.sub(r"^spec\.template\.(spec|metadata)\.(containers\[\w+\]\.)?", "", path)
    return re.sub(r"^envs?\[(.+)\]$", r"\1", re.sub(r"^volumes\[\S*secrets\].*", "secrets", path))


def _promotion(preview: Preview, plan: Plan) -> str:
    if plan.waits:
        return f"not by this: it waits, once it is proven, for `make promote ENV={preview.stack}`"
    moves = f"switch {plan.switches} moves all traffic to {plan.live}"
    if not plan.render:
        return f"at once: {moves}, {plan.release}, which is there already"
    return f"by itself: {moves} once every gate has passed"


_COLOURS = {
    Op.SAME: "fill:#eeeeee,stroke:#999999,color:#333333", Op.CREATE: "fill:#d3f2d9,stroke:#2b8a3e,color:#111111",
    Op.UPDATE: "fill:#fff0b8,stroke:#b58900,color:#111111", Op.REPLACE: "fill:#ffd8a8,stroke:#d9480f,color:#111111",
    Op.DELETE: "fill:#ffc9c9,stroke:#c92a2a,color:#111111",
}  # fmt: skip


def _picture(preview: Preview) -> Iterator[str]:
    """Yield a diagram of the tiers, coloured by their gravest change, with the routes of traffic."""
    worst: dict[tuple[str, str], Op] = {}
    for change in preview.changes:
        key = change.slot, change.owner
        # A slot's secrets and tasks change with every release; only what runs in it counts.
        if change.entry.runs or not change.slot:
            worst[key] = max(worst.get(key, Op.SAME), change.op)
    if not any(worst.values()):
        return
    lines = [_node("gateway", "gateway", worst.get(("", "gateway"), Op.SAME))]
    data = [tier for tier in ("database", "cache") if ("", tier) in worst]
    lines += [_node(tier, tier, worst["", tier]) for tier in data]
    before, after = preview.observed, checkpoint.observe(preview.after)
    for slot in Slot:
        if slot_state := after.held.get(slot) or before.held.get(slot):
            tiers = {
                tier: worst.get((slot, tier), Op.SAME) for tier in sorted(slot_state.release.parts) if "." not in tier
            }
            suspended = slot in after.held and _kept(slot, before, after)
            lines.append(f'subgraph {slot}["{slot}: {slot_state.release}"]')
            lines += [_node(f"{slot}_{tier}", tier, op, suspended) for tier, op in tiers.items()]
            lines += ["end", *_arrow(slot, before, after), *(f"{slot} --- {tier}" for tier in data)]
    used = [op for op in Op if any(line.endswith(f":::{op.word}") for line in lines)]
    lines += [f"classDef {op.word} {_COLOURS[op]}" for op in used]
    yield "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _node(key: str, name: str, op: Op, kept: bool = False) -> str:
    """Return a node of the diagram. A deleted resource of a `kept` tier is suspended: its description stays in the state."""
    status = "rests" if kept and op is Op.DELETE else op.word
    label = name if op is Op.SAME else f"{name}<br>{status}"
    return f'{key}["{label}"]:::{op.word}'


def _arrow(slot: Slot, before: Observed, after: Observed) -> Iterator[str]:
    if after.live is slot:
        yield f"gateway ==>|{'live' if before.live is slot else 'after the switch'}| {slot}"
    elif before.live is slot and after.live:
        yield f"gateway -.->|until the switch| {slot}"


def _details(preview: Preview, room: int) -> str:
    """Return all changes as a folded diff of at most `room` characters. Shared resources come first, so that cuts hit slots."""
    touched = [change for change in preview.changes if change.op]
    touched.sort(key=lambda change: ([*Area].index(change.area), change.entry.urn))
    if not touched:
        return ""
    start, end = f"\n<details><summary>All changes: {len(touched)}</summary>\n\n```diff\n", "\n```\n\n</details>\n"
    rest = f"# {{}} more are left out here: pulumi preview --diff --stack {preview.stack} has them"
    blocks = ["\n".join(_diff(change)) for change in touched]
    return start + "\n".join(_fitting(blocks, room - len(start + rest + end) - ITEMS, rest)) + end


def _diff(change: Change) -> Iterator[str]:
    because = f", because of {listed(change.reasons)}" if change.op is Op.REPLACE and change.reasons else ""
    sign = {Op.CREATE: "+", Op.DELETE: "-"}.get(change.op, "!")
    yield short(f"{sign} {change.kind} {change.entry.name}: {change.op.word}{because}", 4 * WIDTH)
    if change.op is Op.CREATE:
        yield from (f"+   {path}: {short(value)}" for path, value in leaves(change.entry.inputs))
    elif change.op is not Op.DELETE:
        yield from (f"!   {path}: {was} → {now}" for path, was, now in _differences(change.old, change.new))


def listed(names: Sequence[str], between: str = ", ") -> str:
    """Return the first names, and the number of further ones."""
    more = len(names) - ITEMS
    return between.join([*names[:ITEMS], *([f"and {more} more"] if more > 0 else [])])


def short(text: str, width: int = WIDTH) -> str:
    """Return a text as one line of at most `width` characters that can't end a Markdown fence."""
    text = text.replace("```", "'''").replace("\n", "⏎").replace("\r", "")
    return text if len(text) <= width else f"{text[: width - 1]}…"


def plain(text: str) -> str:
    """Return a text that is safe between backticks in a table."""
    return short(text).replace("`", "'").replace("|", "¦")


# ---------------------------------------------------------------------- where it goes


def marker(stack: str) -> str:
    """Return the first line of a stack's comment, which is invisible when rendered."""
    return f"<!-- tiers-preview {stack} -->"


def sticky(comments: Iterable[Mapping[str, Any]], stack: str) -> int | None:
    """Return the id of this stack's comment among those of a pull request; the lowest if there are several."""
    ids = (comment["id"] for comment in comments if (comment.get("body") or "").splitlines()[:1] == [marker(stack)])
    return min(ids, default=None)


def post(text: str, stack: str, variables: Mapping[str, str]) -> str:
    """Post the stack's comment to the pull request, in place of its last one, and return its URL.

    Raises:
        RunError: GitHub refuses the request.
    """
    api = variables.get("GITHUB_API_URL") or "https://api.github.com"
    issues = f"{api}/repos/{variables['GITHUB_REPOSITORY']}/issues"
    page: str | None = f"{issues}/{variables['PR_NUMBER']}/comments"
    comments: list[Mapping[str, Any]] = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {variables['GITHUB_TOKEN']}"
        session.headers["Accept"] = "application/vnd.github+json"
        while page:
            answer = _asked(session, "GET", page, params={"per_page": 100})
            comments += answer.json()
            page = answer.links.get("next", {}).get("url")
        comment_id = sticky(comments, stack)
        target = f"{issues}/comments/{comment_id}" if comment_id else f"{issues}/{variables['PR_NUMBER']}/comments"
        return str(_asked(session, "PATCH" if comment_id else "POST", target, json={"body": text}).json()["html_url"])


def _asked(session: requests.Session, verb: str, url: str, **more: Any) -> requests.Response:
    try:
        answer = session.request(verb, url, timeout=30, **more)
    except requests.RequestException as error:
        raise RunError(f"{url}: GitHub can't be reached ({type(error).__name__}); try again") from None
    if not answer.ok:
        fix = "the token needs `pull-requests: write`, and PR_NUMBER must name a pull request of GITHUB_REPOSITORY"
        raise RunError(f"{verb} {url}: GitHub answers {answer.status_code}; {fix}")
    return answer


def ask(stack: str) -> Mapping[str, Any]:
    """Return the output of `pulumi preview`. If it is not JSON, return its error in the same form."""
    command = ["pulumi", "preview", "--json", "--show-sames", "--non-interactive", "--stack", stack]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        message = done.stderr.strip() or done.stdout.strip() or f"`{' '.join(command)}` ended with {done.returncode}"
        return {"diagnostics": [{"severity": "error", "message": message}]}


def main(stack: str, file: str | None = None) -> int:
    preview = read(json.loads(Path(file).read_text()) if file else ask(stack), stack)
    text = comment(preview)
    posts = all(os.environ.get(name) for name in POSTED_TO)
    print(post(text, stack, os.environ) if posts else text, end="\n" if posts else "")
    return 1 if preview.errors else 0


if __name__ == "__main__":
    words = edge.arguments("preview STACK [FILE]", 1, 2)
    edge.end("preview", lambda: main(*words))
