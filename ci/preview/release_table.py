"""Table of a release: its slot, its differences from the live release, its migrations, and how it goes live."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from components.release.checkpoint import LABEL_RELEASE, LABEL_SLOT, Checkpoint
from components.release.planner import Plan, Release, Slot, StackState, differences

from .diff import flat_inputs, old_to_new
from .markdown import escape, join
from .read import Preview

_NO_DIFFERENCE = re.compile(
    r"label|metadata\.name|^name$|aliases|replicas$|\[(RELEASE|SLOT)\]|secrets\].*(items|path|readonly|mode)|volumes\[secrets\]\.name$",
    re.IGNORECASE,
)
"""Pattern of the inputs that are not compared: they always differ, repeat another input, or are not part of a release."""


def release_table(preview: Preview) -> Iterator[str]:
    """Yield a table if the update deploys a release or switches. Otherwise yield a line if a release waits for promotion."""
    plan, state = preview.plan, preview.state_before
    live = state.slots.get(state.live) if state.live else None
    if plan and (plan.render or plan.moves):
        rows = [*_slot_rows(plan, state), *_content_rows(preview, plan, live.release if live else None)]
        rows.append(("goes live", _promotion(plan, preview.stack)))
        yield "\n".join(["| release | |", "|---|---|", *(f"| {title} | {text} |" for title, text in rows)])
    elif state.waiting and state.live and state.standby:
        release = state.standby.release
        yield f"{release} on {state.live.other} waits for promotion: `make promote ENV={preview.stack}`"


def _slot_rows(plan: Plan, state: StackState) -> Iterator[tuple[str, str]]:
    if plan.render:
        old = state.slots.get(plan.render)
        yield "slot", f"{plan.render}: {old.release if old else 'empty'} → **{plan.release}**"
    if state.live and state.live in state.slots:
        status = "stays live" if plan.waits else "is live until the switch"
        yield "live", f"{state.live}: {state.slots[state.live].release} {status}"


def _content_rows(preview: Preview, plan: Plan, live: Release | None) -> Iterator[tuple[str, str]]:
    if not plan.render:
        return
    parts = differences(live.parts if live else {}, plan.release.parts)
    if live:
        yield "differs from live", "<br>".join(_part(preview, plan, part) for part in parts) or "its version only"
    migrations = [f"`{part}`" for part in plan.release.parts if part.endswith(".migrate")]
    warning = ". **contract: the previous release can't run with it, so a rollback past it is refused**"
    yield "migration", (join(migrations) or "none") + (warning if plan.release.contract else "")


def _promotion(plan: Plan, stack: str) -> str:
    if plan.waits:
        return f"not in this update: after it passes its gates, it waits for `make promote ENV={stack}`"
    switch = f"switch {plan.switches} moves all traffic to {plan.live}"
    if not plan.render:
        return f"at once: {switch}, {plan.release} is deployed already"
    return f"by itself: {switch} once every gate has passed"


@dataclass(frozen=True)
class _Value:
    """Value of a tier's input. `common` lacks the names of slot and release, so it can be compared between slots."""

    text: str = ""
    common: str = ""


def _part(preview: Preview, plan: Plan, part: str) -> str:
    """Return the name of a part of the release, such as a tier, and the inputs that differ from the live release."""
    assert plan.previous
    assert plan.render
    old, new = _values(preview.before, part, plan.previous), _values(preview.after, part, plan.render)
    changes: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, _Value()), new.get(name, _Value())
        if before.common != after.common:
            changes.append(f"{escape(name)} {old_to_new(before.text, after.text)}")
    return f"**{part}**" + (f": {join(changes, '; ')}" if changes else "")


def _values(state: Checkpoint, tier: str, slot: Slot) -> dict[str, _Value]:
    """Return the inputs of the container or workload that runs a tier in a slot: short name → value."""
    entries = (e for e in state.entries if e.runs and e.tier == tier and e.labels.get(LABEL_SLOT) == slot)
    entry = next((entry for entry in entries if not entry.type.endswith("Autoscaler")), None)
    if not entry:
        return {}
    texts: dict[str, str] = {}
    for path, text in flat_inputs(entry):
        if not _NO_DIFFERENCE.search(path):
            name = _short_name(path)
            texts[name] = f"{texts[name]} {text}" if name in texts else text
    # On Docker the input is the id of the image. Show the image's name instead, which the URN of a dependency contains.
    images = [name for urn in entry.dependencies if (name := urn.rpartition(f"{slot}-image-")[2]) != urn]
    texts |= {"image": images[0]} if len(images) == 1 else {}
    release = entry.labels.get(LABEL_RELEASE, "")
    return {name: _Value(text, text.replace(release, "").replace(f"-{slot}", "")) for name, text in texts.items()}


def _short_name(path: str) -> str:
    """Return a short name for the path of an input, such as the name of a variable."""
    path = re.sub(r"^spec\.template\.(spec|metadata)\.(containers\[\w+\]\.)?", "", path)
    return re.sub(r"^envs?\[(.+)\]$", r"\1", re.sub(r"^volumes\[\S*secrets\].*", "secrets", path))
