"""Status of a stack on one screen: live slot, releases, readiness, problems and last switches. `python -m ci.status STACK`.

It changes nothing, and exits with 0 even if there are problems; `make check` fails on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pulumi import RunError

from components import checkpoint, journal
from components.checkpoint import Checkpoint, Entry
from components.config import TierName
from components.platforms import ready_at
from components.platforms.inventory import locate
from components.release import Observed, Slot

from . import edge
from .described import state
from .heal import look
from .repair import problems, unavailable

SHOWN = 5
"""Number of switches shown; the checkpoint has more."""


def main(stack: str) -> None:
    """Print the status of a stack. Invalid files do not prevent it: the state says where the stack is deployed.

    Raises:
        RunError: no release is live.
    """
    exported = state(stack)
    parsed = checkpoint.parse(exported)
    observed = checkpoint.observe(parsed)
    location = locate(exported, stack)
    if not observed.live or not location:
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    ready, present = ready_at(location), look(location, exported)
    creation_times = _made(exported)
    platform = "kubernetes" if location.context else "docker"
    print(f"{location.app} {stack} ({platform}): {observed.live} is live\n")
    for slot in Slot:
        print("\n".join(_slot(slot, observed, parsed, ready, creation_times, unavailable(parsed, slot, present))))
    shared = [f"{tier} {count}/{of}" for (slot_name, tier), (count, of) in sorted(ready.items()) if not slot_name]
    print(f"  shared   ready: {', '.join(shared) or 'none'}\n")
    print("\n".join(_switches(journal.entries(parsed))) or "  no switch is on record")
    if parsed.pending:
        print(f"\n  the last update was cut off while {', '.join(parsed.pending)}: run `make heal ENV={stack}`")
    if wrong := problems(exported, present, stack):
        print("\n  wrong:")
        print("\n".join(f"  - {line}" for line in wrong))


def _slot(
    slot: Slot,
    observed: Observed,
    known: Checkpoint,
    ready: Mapping[tuple[str, str], tuple[int, int]],
    made: Mapping[str, datetime],
    absent: Sequence[str],
) -> Iterator[str]:
    slot_state = observed.held.get(slot)
    if not slot_state:
        yield f"  {slot:<8} empty\n"
        return
    role = "live" if slot is observed.live else "failed a gate" if not slot_state.proven else ""
    role = role or ("waits to be promoted" if observed.waiting else "standby")
    entries = (*known.below(slot, checkpoint.SLOT), *checkpoint.rested(known, slot))
    ages = [made[entry.urn] for entry in entries if entry.urn in made]
    yield f"  {slot:<8} {slot_state.release}, {role}" + (f", made {_ago(max(ages))} ago" if ages else "")
    for tier in (TierName.WEB, TierName.API, TierName.WORKER):
        if tier in slot_state.release.parts:
            image = next(
                (text for entry in entries if entry.runs and entry.tier == tier and (text := _image(entry, entries))),
                "",
            )
            count, total = ready.get((slot, tier), (0, 0))
            yield f"           {tier:<8} {f'{count}/{total} ready' if total else 'rests':<10} {image}"
    if absent and slot is not observed.live:
        yield f"           can't go live again: {' and '.join(absent)} is gone from the engine; release that commit again"
    yield ""


def _image(entry: Entry, entries: Sequence[Entry]) -> str:
    """Return an image's name. On Docker a container has only the image's id."""
    if template := entry.inputs.get("spec", {}).get("template"):
        return str(template["spec"]["containers"][0]["image"])
    names = {str(entry.outputs.get("imageId")): str(entry.inputs.get("name")) for entry in entries}
    return names.get(str(entry.inputs.get("image")), "")


def _switches(entries: Any) -> Iterator[str]:
    for entry in [*entries][: -SHOWN - 1 : -1]:
        gates = ", ".join(f"{name} {seconds:g} s" for name, seconds in entry["gates"].items())
        yield f"  switch {entry['number']:<3} {entry['at']}  {entry['from'] or 'nothing'} → {entry['to']} ({entry['slot']})"
        yield f"             by {entry['who']}; passed after {gates}"


def _made(left: Mapping[str, Any]) -> dict[str, datetime]:
    deployment: dict[str, Any] = left.get("deployment") or {}
    resources: list[dict[str, Any]] = deployment.get("resources") or []
    return {
        resource["urn"]: datetime.fromisoformat(resource["created"])
        for resource in resources
        if resource.get("created")
    }


def _ago(then: datetime) -> str:
    minutes = int((datetime.now(UTC) - then).total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60
    return f"{days} days" if days else f"{hours} h" if hours else f"{minutes} min"


if __name__ == "__main__":
    words = edge.arguments("status STACK", 1, 1)
    edge.end("status", lambda: main(*words))
