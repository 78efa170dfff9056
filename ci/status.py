"""Status of a stack on one screen: live slot, releases, readiness, problems, last switches and last commands.

`python -m ci.status STACK` does the same as `make status`.

The command changes nothing, and exits with 0 even if there are problems. `make check` fails if there are problems.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pulumi import RunError

from components import platforms
from components.platforms.inventory import locate, resources_of
from components.release import checkpoint, journal
from components.release.checkpoint import Checkpoint, Entry
from components.release.planner import Slot, StackState

from . import command_journal, command_line, scheduled_jobs
from .heal import read_inventory
from .pulumi_stack import state
from .repair import missing_images, problems

SHOWN_SWITCHES = SHOWN_COMMANDS = 5
"""Numbers of switches and of commands that are printed."""


def main(stack: str) -> None:
    """Print the status of a stack. The platform comes from the state, so the files may be invalid.

    Raises:
        RunError: no release is live.
    """
    exported = state(stack)
    parsed = checkpoint.parse(exported)
    observed = checkpoint.observe(parsed)
    location = locate(exported, stack)
    if not observed.live or not location:
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    inspector = platforms.inspector_at(location)
    ready, present = inspector.replica_counts(), read_inventory(location, exported)
    creation_times = _creation_times(exported)
    print(f"{location.app} {stack} ({location.platform}): {observed.live} is live\n")
    for slot in Slot:
        print("\n".join(_slot(slot, observed, parsed, ready, creation_times, missing_images(parsed, slot, present))))
    shared = [f"{tier} {count}/{total}" for (slot_name, tier), (count, total) in sorted(ready.items()) if not slot_name]
    print(f"  shared   ready: {', '.join(shared) or 'none'}\n")
    print("\n".join(_switches(journal.entries(parsed))) or "  no switch is recorded")
    now = datetime.now(UTC)
    if jobs := scheduled_jobs.live_jobs(parsed, inspector.job_runs):
        print("\n  jobs")
        print("\n".join(f"  {job.describe(now)}" for job in jobs))
    print("\n".join(_commands(stack)))
    if parsed.pending:
        print(f"\n  the last update was interrupted during {', '.join(parsed.pending)}: run `make heal ENV={stack}`")
    if wrong := [*problems(exported, present, stack), *scheduled_jobs.problems(jobs, parsed, now)]:
        print("\n  wrong:")
        print("\n".join(f"  - {line}" for line in wrong))


def _slot(
    slot: Slot,
    observed: StackState,
    state_checkpoint: Checkpoint,
    ready: Mapping[tuple[str, str], tuple[int, int]],
    created: Mapping[str, datetime],
    missing_images: Sequence[str],
) -> Iterator[str]:
    slot_state = observed.slots.get(slot)
    if not slot_state:
        yield f"  {slot:<8} empty\n"
        return
    role = "live" if slot is observed.live else "failed a gate" if not slot_state.proven else ""
    role = role or ("waits for promotion" if observed.waiting else "standby")
    entries = (
        *state_checkpoint.descendants(slot, checkpoint.SLOT),
        *checkpoint.suspended_entries(state_checkpoint, slot),
    )
    ages = [created[entry.urn] for entry in entries if entry.urn in created]
    yield f"  {slot:<8} {slot_state.release}, {role}" + (f", created {_ago(max(ages))} ago" if ages else "")
    for tier in slot_state.release.services:
        image = next(
            (text for entry in entries if entry.runs and entry.tier == tier and (text := _image(entry, entries))),
            "",
        )
        count, total = ready.get((slot, tier), (0, 0))
        yield f"           {tier:<8} {f'{count}/{total} ready' if total else 'suspended':<10} {image}"
    if missing_images and slot is not observed.live:
        yield f"           can't go live again, because the engine lacks {' and '.join(missing_images)}; release that commit again"
    yield ""


def _image(entry: Entry, entries: Sequence[Entry]) -> str:
    """Return the name of the image that a resource runs.

    A Docker container has only the id of the image, so the name is looked up in `entries`.
    """
    if template := entry.inputs.get("spec", {}).get("template"):
        return str(template["spec"]["containers"][0]["image"])
    return checkpoint.image_names(entries).get(entry.image_id or "", "")


def _switches(entries: Any) -> Iterator[str]:
    for entry in [*entries][: -SHOWN_SWITCHES - 1 : -1]:
        gates = ", ".join(f"{name} {seconds:g} s" for name, seconds in entry["gates"].items())
        yield f"  switch {entry['number']:<3} {entry['at']}  {entry['from'] or 'nothing'} → {entry['to']} ({entry['slot']})"
        yield f"             by {entry['who']}; passed after {gates}"


def _commands(stack: str) -> Iterator[str]:
    """Yield a line for each of the last commands of people in the environment (`make run`, `exec` and `console`)."""
    try:
        entries = command_journal.entries(stack)[:SHOWN_COMMANDS]
    except RunError as error:
        yield f"  the journal of commands can't be read: {error}"
        return
    for entry in entries:
        service = f"{entry.service} ({entry.slot})" if entry.slot else entry.service
        program = f"{entry.program}, {entry.arguments} arguments" if entry.program else "the console"
        yield f"  {entry.target:<10} {entry.at}  {service}: {program}; by {entry.who}"


def _creation_times(exported: Mapping[str, Any]) -> dict[str, datetime]:
    return {
        resource["urn"]: datetime.fromisoformat(resource["created"])
        for resource in resources_of(exported)
        if resource.get("created")
    }


def _ago(then: datetime) -> str:
    minutes = int((datetime.now(UTC) - then).total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60
    return f"{days} days" if days else f"{hours} h" if hours else f"{minutes} min"


if __name__ == "__main__":
    words = command_line.arguments("status STACK", 1, 1)
    command_line.run_and_exit("status", lambda: main(*words))
