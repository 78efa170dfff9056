"""Healing: reconcile a stack's state with its platform before an update. `python -m ci.heal STACK`.

Healing handles two cases (docs/adr/011-healing.md, docs/adr/022-repair.md):

- An update was killed. The update's lock and provider processes remain, and the checkpoint lacks the result of the last
  operation (seen with Pulumi 3.256). Healing clears the lock, ends the processes, and removes objects that are not in
  the checkpoint. The live slot does not change.
- Somebody stopped or removed objects of the stack. Healing starts stopped containers. It removes missing objects from
  the state, so that the next update creates them again. If a missing object belongs to a slot, healing first saves the
  object's inputs in the slot's outputs. If the slot keeps its release, the next update restores the slot from these outputs.

Healing never removes data. If data is lost, healing prints a warning. If the lost data is protected, healing fails;
FORCE=data makes healing continue.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker.errors import DockerException
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from pulumi import RunError
from urllib3.exceptions import HTTPError

from components import platforms
from components.config import ConfigError
from components.platforms.inventory import Inventory, Location, key_of, locate, resources_of
from components.release.checkpoint import observe, parse
from components.safety import guard

from . import command_line, repair
from .pulumi_stack import last_update, load, project, pulumi, pulumi_import, state
from .repair import Repair, plan_repair

UNREACHABLE = (DockerException, ConfigException, ApiException, HTTPError, OSError)
"""Errors of an engine or cluster that does not answer. Healing ignores such errors, because the update reports them."""


def main(stack: str) -> None:
    """Heal a stack: clean up after a killed update, then restore missing and stopped objects.

    Raises:
        RunError: another process updates the stack, or protected data is lost.
    """
    checkpoint = clean_up_killed_update(stack)
    restore_objects(stack, checkpoint)


def clean_up_killed_update(stack: str) -> dict[str, Any]:
    """Clean up after a killed update: clear its lock, end its processes, and remove objects that the checkpoint lacks.

    Returns:
        The state after the cleanup, in the form of `pulumi stack export`.
    """
    unlocked = unlock(stack)
    exported = state(stack)
    deployment: dict[str, Any] = exported.get("deployment") or {}
    pending: list[dict[str, Any]] = deployment.get("pending_operations") or []
    resources = resources_of(exported)
    state_lost = not resources and _confirm_lost_state(stack)
    # If only a provider was killed, no lock remains. A failed last update is then the only sign of remaining objects.
    if not (unlocked or pending or state_lost or last_update(stack).get("result") == "failed"):
        return exported
    # Repeat until no orphan is left, because the end of a language host makes its program an orphan too.
    while orphaned := list(orphaned_processes()):
        for process in orphaned:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            print(f"  ended process {process} of an update that was killed")
        time.sleep(0.1)
    location = locate(exported, stack) or _configured_location(stack)
    if not location:
        return exported
    removed = platforms.inspector_at(location).remove_strays(resources)
    _repeat_switch(location, deployment, pending)
    for name in removed:
        print(f"  removed {name}, which is not in the checkpoint")
    if pending:
        _refresh_interrupted(stack, resources, pending)
    if unlocked or pending or removed:
        print("  healed: run `pulumi up`, or make up")
    return state(stack) if pending else exported


def _configured_location(stack: str) -> Location | None:
    """Return the platform that the configuration files describe, or None if the files are invalid."""
    try:
        app, environment = load(stack)
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None
    return platforms.locate_configured(app, environment, stack)


def _confirm_lost_state(stack: str) -> bool:
    """Return True if containers of the stack run, and FORCE=state confirms that the stack's state is lost.

    Call this function only if the state is empty. If it returns True, healing removes the containers. The next update
    then creates the stack again with its existing data.

    Raises:
        RunError: containers run, and FORCE=state is not set. The state may be in another backend, and the containers
            may serve users.
    """
    try:
        app, environment = load(stack)
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return False
    try:
        ready = platforms.inspector(app, environment, stack).replica_counts()
    except UNREACHABLE:
        return False
    if ready and os.environ.get("TIERS_FORCE") != "state":
        running = ", ".join(sorted({" ".join(filter(None, key)) for key in ready}))
        raise RunError(
            f"the state of stack {stack} is empty, but these containers run: {running}; set PULUMI_BACKEND_URL if the state is "
            "in another backend, or restore a copy of the lost state. Without a copy, run `make heal FORCE=state` to remove the containers, "
            "then `make up` to create them again with their data (docs/runbook.md#lost-state-file)"
        )
    return bool(ready)


def remove_one_offs(stack: str) -> None:
    """End the commands of `make run` that would prevent the removal of a stack."""
    location = locate(state(stack), stack)
    for name in platforms.inspector_at(location).remove_one_offs() if location else ():
        print(f"  removed {name}, in which a command of `make run` ran")


# ---------------------------------------------------------------------- missing and stopped objects


def restore_objects(stack: str, exported: dict[str, Any]) -> None:
    """Start stopped objects on the platform, and remove missing objects from the state.

    Raises:
        RunError: protected data is lost, or no object of the stack exists. TIERS_FORCE=data disables both checks.
    """
    location = locate(exported, stack)
    if not location:
        return
    try:
        present = read_inventory(location, exported)
    except UNREACHABLE as error:
        print(f"  the objects on {location.name} could not be listed: {error}", file=sys.stderr)
        return
    repair_plan = plan_repair(exported, present)
    _refuse_loss(repair_plan, location)
    if repair_plan.start:
        removed = _start(location, repair_plan.start, exported)
        present = replace(present, keys=present.keys - removed, stopped={})
        repair_plan = plan_repair(exported, present)
    _warn_of_loss(repair_plan, exported)
    if repair_plan.changes_state:
        pulumi_import(stack, repair_plan.state)
        for name in repair_plan.not_ready:
            print(f"  {name} did not become ready when it was created; updates no longer wait for it")
        for name in repair_plan.cpus_rewritten:
            print(
                f"  {name}: wrote the number of processors into the state as the provider reads it, so updates keep the container"
            )
        for name in repair_plan.dropped:
            print(f"  {name} is gone; the next update creates it again if it is needed")


def read_inventory(location: Location, exported: Mapping[str, Any]) -> Inventory:
    """Return the inventory of a stack: its objects that exist on the platform.

    An object of the state that the platform does not list is looked up by name before it counts as missing.
    """
    types = {key: str(resource["type"]) for resource in resources_of(exported) if (key := key_of(resource))}
    inspector = platforms.inspector_at(location)
    listed = inspector.inventory(types.values())
    absent = {key: type_ for key, type_ in types.items() if listed.lacks(key)}
    if not absent:
        return listed
    return replace(listed, keys=listed.keys | inspector.confirm(absent))


def _start(location: Location, keys: Sequence[str], exported: Mapping[str, Any]) -> frozenset[str]:
    """Start stopped containers, and wait until they are healthy.

    Returns:
        Keys of the containers that were removed, because they could not be started.
    """
    names, inspector = repair.names_by_key(exported), platforms.inspector_at(location)
    by_hand = {key: command for key in keys if (command := inspector.manual_start(key))}
    for key, command in by_hand.items():
        print(f"  {key} was scaled to 0 by hand; start it with `{command}`")
    startable = [key for key in keys if key not in by_hand]
    failed = inspector.start(startable)
    for key in startable:
        if key in failed:
            print(f"  removed {names[key]}, because it could not be started: {failed[key]}")
        else:
            print(f"  started {names[key]}, which was stopped")
    running = [key for key in startable if key not in failed]
    for name, condition in inspector.wait_healthy(running, repair.health_timeout(exported, keys)).items():
        print(f"  {name} is {condition}: see `docker logs {name}`", file=sys.stderr)
    return frozenset(failed)


def _refuse_loss(plan: Repair, location: Location) -> None:
    if os.environ.get("TIERS_FORCE") == guard.FORCE:
        return
    if plan.nothing_found:
        raise RunError(
            f"the state lists objects of this stack, but {location.name} has none of them; connect to the right engine or cluster "
            "(DOCKER_HOST, KUBECONFIG). If everything is lost, run `make heal FORCE=data` to empty the state, then `make up` to create "
            "the stack again without its data"
        )
    if plan.data:
        raise RunError(
            f"{', '.join(plan.data)}: missing on {location.name}, so protected data is lost; restore the data "
            "(docs/runbook.md#something-is-gone), or continue without the data: `make heal FORCE=data`, then `make up`"
        )


def _warn_of_loss(plan: Repair, exported: Mapping[str, Any]) -> None:
    stores = guard.stored_data(parse(exported))
    for name in plan.dropped:
        if name.partition(" ")[2] in stores and name.partition(" ")[0] != "Container":
            print(f"  WARNING: {name} is gone with its data; the new one starts empty", file=sys.stderr)


# ---------------------------------------------------------------------- locks and processes of a killed update


def unlock(stack: str) -> bool:
    """Clear the lock of a killed Pulumi engine, and return True if there was a lock.

    Locks of a file backend name their holder. Locks of other backends do not, so they are not cleared.

    Raises:
        RunError: the holder of the lock is alive, or on another machine.
    """
    url = urlsplit(str(json.loads(pulumi("whoami", "--json"))["url"]))
    if url.scheme != "file":
        return False
    backend = Path(url.path).expanduser() / ".pulumi"
    locks = sorted((backend / "locks" / "organization" / project() / stack).glob("*.json"))
    for lock in locks:
        holder = json.loads(lock.read_text())
        who = f"{holder['username']}@{holder['hostname']} (process {holder['pid']}, since {holder['timestamp']})"
        if holder["hostname"] != socket.gethostname():
            raise RunError(f"stack {stack} is locked by {who}; if this process no longer runs, run `pulumi cancel`")
        if _is_alive(holder["pid"]):
            raise RunError(f"stack {stack} is being updated by {who}; wait for it to end")
    if locks:
        _remove_broken_attrs(backend / "stacks" / project(), stack)
        pulumi("cancel", "--yes", "--stack", stack)
        print("  cleared the lock of an update that was killed")
    return bool(locks)


def _remove_broken_attrs(folder: Path, stack: str) -> None:
    """Remove `.attrs` files that are not valid JSON, because Pulumi fails to read them.

    Pulumi's file backend stores the type and checksum of a checkpoint in an `.attrs` file. The backend writes the
    checkpoint atomically but not the `.attrs` file, so a killed update can leave an incomplete file. Pulumi works
    without the file (source: gocloud.dev/blob/fileblob).
    """
    for file in folder.glob(f"{stack}.json*.attrs"):
        try:
            json.loads(file.read_text())
        except ValueError:
            file.unlink()
            print(f"  removed {file.name}, which was incomplete")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    words = _command_line(process)
    return not words or "pulumi" in words[0]


def _command_line(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return []


def orphaned_processes() -> Iterator[int]:
    """Yield the process ids of this user's Pulumi plugins and programs that run without an engine.

    The parent of such a process is not Pulumi, and the engine's address on its command line refuses connections.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        words = _command_line(int(folder.name))
        if (
            _is_pulumi(words)
            and _is_own(folder)
            and not _is_pulumi(_command_line(_parent(folder)))
            and _engine_is_gone(words)
        ):
            yield int(folder.name)


def _is_pulumi(words: Sequence[str]) -> bool:
    return any(re.match(r"pulumi($|-(resource|language)-)", Path(word).name) for word in words[:2])


def _is_own(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _engine_is_gone(words: Iterable[str]) -> bool:
    """Return True if an address in a command line refuses connections: the Pulumi engine at this address has ended.

    A timeout does not count, because a busy engine accepts connections slowly.
    """
    for host, _, port in (word.rpartition(":") for word in words):
        if host and port.isdecimal():
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                pass
    return False


# ---------------------------------------------------------------------- interrupted operations


def _repeat_switch(location: Location, deployment: Mapping[str, Any], pending: Collection[Mapping[str, Any]]) -> None:
    """Repeat the last switch in the checkpoint if a later switch was interrupted.

    On Docker the interrupted switch may have moved the traffic already. Repeating the earlier switch moves the traffic back.
    """
    if not any(_name(operation).startswith("switch-") for operation in pending):
        return
    checkpoint = parse({"deployment": deployment})
    last = observe(checkpoint).switches
    for entry in checkpoint.entries:
        if entry.name == f"switch-{last}" and platforms.inspector_at(location).repeat_switch(str(entry.inputs["name"])):
            print(f"  repeated {entry.name}, the switch to {entry.labels['tiers.slot']}")


def _refresh_interrupted(
    stack: str, resources: Collection[Mapping[str, Any]], pending: Collection[Mapping[str, Any]]
) -> None:
    """Refresh the resources whose update or deletion was interrupted.

    Resources with an interrupted creation are not refreshed, because the cleanup has already removed them.
    """
    existing = {resource["urn"] for resource in resources}
    interrupted = sorted(
        {operation["resource"]["urn"] for operation in pending if operation["type"] != "creating"} & existing
    )
    # Without a target Pulumi would refresh all resources. So use the stack resource, which calls no provider.
    targets = interrupted or [resource["urn"] for resource in resources if resource["type"] == "pulumi:pulumi:Stack"]
    words = [word for urn in targets for word in ("--target", urn)]
    pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack, *words)
    for operation in pending:
        print(f"  resolved the interrupted step: {operation['type']} {_name(operation)}")


def _name(operation: Mapping[str, Any]) -> str:
    return str(operation["resource"]["urn"]).rpartition("::")[2]


if __name__ == "__main__":
    words = command_line.arguments("heal STACK", 1, 1)
    command_line.run_and_exit("heal", lambda: main(*words))
