"""Healing: reconciles a stack's state with its platform before an update plans from the state. `python -m ci.heal STACK`.

It handles two cases (docs/adr/011-healing.md, docs/adr/022-repair.md):

- A killed engine leaves its lock, provider processes that live on, and a checkpoint that lacks the result of the last
  operation (seen with Pulumi 3.256). Objects that the checkpoint does not know are removed; the live slot stays as it
  is.
- A person stops or removes objects that the state has. Stopped containers are started. Missing objects are removed
  from the state, and the next update creates them again, those of a kept slot from the slot's own memory.

No data is removed. Lost data is reported. If it is protected, healing stops until a person sets FORCE=data.
"""

import json
import os
import re
import shlex
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

from components import guard, platforms
from components.checkpoint import observe, parse
from components.config import ConfigError
from components.platforms import cluster, engine
from components.platforms.inventory import Inventory, Location, key_of, locate, resources_of

from . import edge, repair
from .described import last_update, load, project, pulumi, pulumi_import, state
from .repair import Repair, plan_repair

UNREACHABLE = (DockerException, ConfigException, ApiException, HTTPError, OSError)
"""Errors of an engine or cluster that does not answer, which the update reports."""


def main(stack: str) -> None:
    """Heal a stack: clean up after a killed update, then restore missing and stopped objects.

    Raises:
        RunError: another process works on the stack, or protected data is lost.
    """
    checkpoint = end_killed(stack)
    put_back(stack, checkpoint)


def end_killed(stack: str) -> dict[str, Any]:
    """Clean up after a killed update: its lock, its processes and half-made objects.

    Returns:
        The state afterwards, in the form of `pulumi stack export`.
    """
    unlocked = unlock(stack)
    exported = state(stack)
    deployment: dict[str, Any] = exported.get("deployment") or {}
    pending: list[dict[str, Any]] = deployment.get("pending_operations") or []
    resources = resources_of(exported)
    lost = not resources and _lost(stack)
    # If only a provider died, its objects remain, and the failed update is the only sign of them.
    if not (unlocked or pending or lost or last_update(stack).get("result") == "failed"):
        return exported
    # Repeated, because a program becomes an orphan once the host that started it is gone.
    while orphaned := list(orphans()):
        for process in orphaned:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            print(f"  ended process {process}, whose engine is gone")
        time.sleep(0.1)
    location = locate(exported, stack) or _described_location(stack)
    if not location:
        return exported
    if location.context:
        removed = cluster.remove_strays(location, {_uid(resource) for resource in resources})
    else:
        removed = engine.remove_strays(location, {str(resource.get("id")) for resource in resources})
        _switch_again(location, deployment, pending)
    for name in removed:
        print(f"  removed {name}, which the checkpoint does not know")
    if pending:
        _settle(stack, resources, pending)
    if unlocked or pending or removed:
        print("  healed: run `pulumi up`, or make up")
    return state(stack) if pending else exported


def _described_location(stack: str) -> Location | None:
    """Return the platform that the files name, or None if the files are invalid: orphaned objects can't be found then."""
    try:
        app, environment = load(stack)
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None
    return platforms.locate_described(app, environment, stack)


def _lost(stack: str) -> bool:
    """Tell whether the stack runs although its state is empty, and FORCE=state confirms it.

    The stack is then created again around its data.

    Raises:
        RunError: FORCE=state is not set. Another backend may have the state, and the running containers serve users.
    """
    try:
        app, environment = load(stack)
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return False
    try:
        ready = platforms.ready(app, environment, stack)
    except UNREACHABLE:
        return False
    if ready and os.environ.get("TIERS_FORCE") != "state":
        running = ", ".join(sorted({" ".join(filter(None, key)) for key in ready}))
        raise RunError(
            f"the state of stack {stack} is empty, and {running} of it run: if the state is kept somewhere else, say where "
            "(PULUMI_BACKEND_URL); if it is lost, put its copy back; without a copy, `make heal FORCE=state` removes what "
            "runs, and `make up` makes it anew around its data (docs/runbook.md#lost-state-file)"
        )
    return bool(ready)


def _uid(resource: Mapping[str, Any]) -> str:
    outputs: dict[str, Any] = resource.get("outputs") or {}
    return str(outputs.get("metadata", {}).get("uid"))


# ---------------------------------------------------------------------- what is gone or stopped


def put_back(stack: str, exported: dict[str, Any]) -> None:
    """Start stopped objects, and remove missing ones from the state.

    Raises:
        RunError: protected data is lost, or no object of the stack exists, and TIERS_FORCE=data does not confirm it.
    """
    location = locate(exported, stack)
    if not location:
        return
    try:
        present = look(location, exported)
    except UNREACHABLE as error:
        print(f"  {location.name} could not be asked what is there: {error}", file=sys.stderr)
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
        for name in repair_plan.settled:
            print(f"  {name} did not become ready when it was created; updates no longer wait for it")
        for name in repair_plan.respelled:
            print(f"  {name} has its amount of processors as the provider reads it, and need not be replaced")
        for name in repair_plan.dropped:
            print(f"  {name} is gone; the next update creates it again if it is needed")


def look(location: Location, exported: Mapping[str, Any]) -> Inventory:
    """List the objects of a stack on its platform. Each that seems to be missing is requested again by its own name."""
    types = {key: str(resource["type"]) for resource in resources_of(exported) if (key := key_of(resource))}
    listed = cluster.inventory(location, types.values()) if location.context else engine.inventory(location)
    absent = {
        key: type_
        for key, type_ in types.items()
        if key not in listed.keys and (listed.kinds is None or key.partition(" ")[0] in listed.kinds)
    }
    if not absent:
        return listed
    confirmed = cluster.confirm(location, absent) if location.context else engine.confirm(location, absent)
    return replace(listed, keys=listed.keys | confirmed)


def _start(location: Location, keys: Sequence[str], left: Mapping[str, Any]) -> frozenset[str]:
    """Start stopped containers, and wait until they serve.

    Returns:
        Keys of the containers that could not be started and were removed.
    """
    names = repair.names_by_key(left)
    if location.context:
        for key in keys:
            kind, _, identifier = key.partition(" ")
            print(
                f"  {key} is scaled to 0 by hand: `kubectl --context {shlex.quote(location.context)} --namespace {location.namespace} "
                f"scale {kind.lower()}/{identifier.rpartition('/')[2]} --replicas=1` starts it"
            )
        return frozenset()
    ids = [key.partition(" ")[2] for key in keys]
    failed = engine.start(location, ids)
    for key in keys:
        identity = key.partition(" ")[2]
        if identity in failed:
            print(f"  removed {names[key]}, which could not be started: {failed[identity]}")
        else:
            print(f"  started {names[key]}, which was stopped")
    running = [identity for identity in ids if identity not in failed]
    for name, condition in engine.wait_healthy(location, running, repair.patience(left, keys)).items():
        print(f"  {name} is {condition}: `docker logs {name}` says why", file=sys.stderr)
    return frozenset(f"container {identity}" for identity in failed)


def _refuse_loss(planned: Repair, location: Location) -> None:
    if os.environ.get("TIERS_FORCE") == guard.FORCE:
        return
    if planned.nothing_found:
        raise RunError(
            f"nothing of this stack is on {location.name}, where its state says that it is: point to the right one "
            "(DOCKER_HOST, KUBECONFIG); if all of it is lost, `make heal FORCE=data` forgets what was there, and `make up` "
            "makes it anew, without its data"
        )
    if planned.data:
        raise RunError(
            f"{', '.join(planned.data)}: gone from {location.name}, with the data that was in it, which is protected; bring "
            "it back (docs/runbook.md#something-is-gone), or go on without it: `make heal FORCE=data`, then `make up`"
        )


def _warn_of_loss(planned: Repair, left: Mapping[str, Any]) -> None:
    stores = guard.held(parse(left))
    for name in planned.dropped:
        if name.partition(" ")[2] in stores and name.partition(" ")[0] != "Container":
            print(f"  WARNING: {name} is gone with its data; the next one starts empty", file=sys.stderr)


# ---------------------------------------------------------------------- what the engine left


def unlock(stack: str) -> bool:
    """Clear the lock of a dead engine. Only the locks of a file backend name their holder.

    Raises:
        RunError: a living process, or one on another machine, holds the lock.
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
            raise RunError(f"stack {stack} is locked by {who}; if nothing runs there any more, run `pulumi cancel`")
        if _alive(holder["pid"]):
            raise RunError(f"stack {stack} is being updated by {who}; wait for it to end")
    if locks:
        _mend(backend / "stacks" / project(), stack)
        pulumi("cancel", "--yes", "--stack", stack)
        print("  cleared the lock of an update that was killed")
    return bool(locks)


def _mend(folder: Path, stack: str) -> None:
    """Remove half-written `.attrs` files, which would be read as errors.

    Pulumi's file backend writes the checkpoint to a second file and renames it, but not the file with its type and
    checksum. Source: gocloud.dev/blob/fileblob, which can do without that file. Seen when an engine was killed while
    it wrote.
    """
    for file in folder.glob(f"{stack}.json*.attrs"):
        try:
            json.loads(file.read_text())
        except ValueError:
            file.unlink()
            print(f"  removed {file.name}, which was half written")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    words = _words(process)
    return not words or "pulumi" in words[0]


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return []


def orphans() -> Iterator[int]:
    """Yield the process ids of providers and programs that outlived their engine.

    Their parent is no process of Pulumi, and the address they were started with refuses connections.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        words = _words(int(folder.name))
        if _pulumis(words) and _mine(folder) and not _pulumis(_words(_parent(folder))) and _left_alone(words):
            yield int(folder.name)


def _pulumis(words: Sequence[str]) -> bool:
    return any(re.match(r"pulumi($|-(resource|language)-)", Path(word).name) for word in words[:2])


def _mine(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _left_alone(words: Iterable[str]) -> bool:
    """Tell whether one of these addresses refuses connections. A busy engine would accept them slowly."""
    for host, _, port in (word.rpartition(":") for word in words):
        if host and port.isdecimal():
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                pass
    return False


# ---------------------------------------------------------------------- what it was doing


def _switch_again(location: Location, left: Mapping[str, Any], pending: Collection[Mapping[str, Any]]) -> None:
    """Repeat the last known switch on Docker if a switch was interrupted, which may have moved traffic already."""
    if not any(_name(operation).startswith("switch-") for operation in pending):
        return
    checkpoint = parse({"deployment": left})
    last = observe(checkpoint).switches
    for entry in checkpoint.entries:
        if entry.name == f"switch-{last}":
            engine.run_again(location, str(entry.inputs["name"]))
            print(f"  repeated {entry.name}, to {entry.labels['tiers.slot']}")


def _settle(stack: str, resources: Collection[Mapping[str, Any]], pending: Collection[Mapping[str, Any]]) -> None:
    """Refresh the resources whose change or deletion was interrupted. Resources in creation were removed before."""
    existing = {resource["urn"] for resource in resources}
    doubtful = sorted(
        {operation["resource"]["urn"] for operation in pending if operation["type"] != "creating"} & existing
    )
    # Without a resource to refresh, the stack itself is the target, for which no provider is called.
    targets = doubtful or [resource["urn"] for resource in resources if resource["type"] == "pulumi:pulumi:Stack"]
    words = [word for urn in targets for word in ("--target", urn)]
    pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack, *words)
    for operation in pending:
        print(f"  settled: {operation['type']} {_name(operation)}")


def _name(operation: Mapping[str, Any]) -> str:
    return str(operation["resource"]["urn"]).rpartition("::")[2]


if __name__ == "__main__":
    words = edge.arguments("heal STACK", 1, 1)
    edge.end("heal", lambda: main(*words))
