"""Healing: brings a stack's state and its platform together before an update plans from the state. `python -m ci.heal STACK`.

Two things are mended (docs/adr/011-healing.md, docs/adr/022-repair.md):

- A killed engine leaves its lock, provider processes that live on, and a checkpoint that does not know how what it was doing has
  ended (seen with Pulumi 3.256). What the checkpoint does not know is removed; what is live is not touched.
- Somebody stops or removes what the state says is there. Stopped containers are started; what is gone leaves the state, and the
  next update makes it again: of a slot that stays from the slot's own memory.

No data is removed. Lost data is said, and where it is protected nothing goes on without a person's word (FORCE=data).
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
"""Errors of an engine or cluster that does not answer: they are the update's to explain."""


def main(stack: str) -> None:
    """Heal a stack: end what a killed update left, then put back what is gone or stopped.

    Raises:
        RunError: somebody else is at work on the stack, or data is lost that is protected.
    """
    left = end_killed(stack)
    put_back(stack, left)


def end_killed(stack: str) -> dict[str, Any]:
    """End what a killed update left: its lock, its processes, what it was making. Return the state afterwards."""
    unlocked = unlock(stack)
    left = state(stack)
    deployment: dict[str, Any] = left.get("deployment") or {}
    pending: list[dict[str, Any]] = deployment.get("pending_operations") or []
    resources = resources_of(left)
    lost = not resources and _lost(stack)
    # A provider that died under a living engine leaves what it had made, and no other sign than that the update failed.
    if not (unlocked or pending or lost or last_update(stack).get("result") == "failed"):
        return left
    # A program is an orphan once the host that started it is gone, too.
    while left_over := list(orphans()):
        for process in left_over:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            print(f"  ended process {process}, whose engine is gone")
        time.sleep(0.1)
    location = locate(left, stack) or _described_location(stack)
    if not location:
        return left
    if location.context:
        removed = cluster.remove_strays(location, {_uid(each) for each in resources})
    else:
        removed = engine.remove_strays(location, {str(each.get("id")) for each in resources})
        _switch_again(location, deployment, pending)
    for name in removed:
        print(f"  removed {name}, which the checkpoint does not know")
    if pending:
        _settle(stack, resources, pending)
    if unlocked or pending or removed:
        print("  healed: run `pulumi up`, or make up")
    return state(stack) if pending else left


def _described_location(stack: str) -> Location | None:
    """Return the platform that the files name, or None if they can't be used: then nothing can be looked for."""
    try:
        app, environment = load(stack)
    except (ConfigError, OSError, ValueError, KeyError, TypeError):
        return None
    return platforms.locate_described(app, environment, stack)


def _lost(stack: str) -> bool:
    """Whether the stack runs and the state does not know of it, and that is said to be so: then it is made anew around its data.

    Raises:
        RunError: nobody has said so. It may be another backend that knows, and what runs there serves.
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
        there = ", ".join(sorted({" ".join(filter(None, each)) for each in ready}))
        raise RunError(
            f"the state of stack {stack} is empty, and {there} of it run: if the state is kept somewhere else, say where "
            "(PULUMI_BACKEND_URL); if it is lost, put its copy back; without a copy, `make heal FORCE=state` removes what "
            "runs, and `make up` makes it anew around its data (docs/runbook.md#lost-state-file)"
        )
    return bool(ready)


def _uid(resource: Mapping[str, Any]) -> str:
    outputs: dict[str, Any] = resource.get("outputs") or {}
    return str(outputs.get("metadata", {}).get("uid"))


# ---------------------------------------------------------------------- what is gone or stopped


def put_back(stack: str, left: dict[str, Any]) -> None:
    """Start what is stopped, and take what is gone out of the state.

    Raises:
        RunError: protected data is lost, or nothing of the stack is there, and nobody has said that it goes on without
            (TIERS_FORCE=data).
    """
    location = locate(left, stack)
    if not location:
        return
    try:
        found = look(location, left)
    except UNREACHABLE as error:
        print(f"  {location.name} could not be asked what is there: {error}", file=sys.stderr)
        return
    planned = plan_repair(left, found)
    _refuse_loss(planned, location)
    if planned.start:
        removed = _start(location, planned.start, left)
        found = replace(found, keys=found.keys - removed, stopped={})
        planned = plan_repair(left, found)
    _warn_of_loss(planned, left)
    if planned.changes_state:
        pulumi_import(stack, planned.state)
        for name in planned.settled:
            print(f"  {name} did not become ready when it was made: no update waits for it any more")
        for name in planned.dropped:
            print(f"  {name} is gone: the next update makes it again where it is needed")


def look(location: Location, left: Mapping[str, Any]) -> Inventory:
    """List what of a stack is on its platform. Whatever seems to be gone is asked for once more, by its own name."""
    types = {key: str(each["type"]) for each in resources_of(left) if (key := key_of(each))}
    found = cluster.inventory(location, types.values()) if location.context else engine.inventory(location)
    absent = {
        key: type_
        for key, type_ in types.items()
        if key not in found.keys and (found.kinds is None or key.partition(" ")[0] in found.kinds)
    }
    if not absent:
        return found
    there = cluster.confirm(location, absent) if location.context else engine.confirm(location, absent)
    return replace(found, keys=found.keys | there)


def _start(location: Location, keys: Sequence[str], left: Mapping[str, Any]) -> frozenset[str]:
    """Start stopped containers, and wait until they serve. Return the keys of those that could not be, and are removed."""
    names = repair.names_by_key(left)
    if location.context:
        for key in keys:
            kind, _, where = key.partition(" ")
            print(
                f"  {key} is scaled to 0 by hand: `kubectl --context {shlex.quote(location.context)} --namespace {location.namespace} "
                f"scale {kind.lower()}/{where.rpartition('/')[2]} --replicas=1` starts it"
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
            print(f"  WARNING: {name} is gone, and all that it held: it begins empty", file=sys.stderr)


# ---------------------------------------------------------------------- what the engine left


def unlock(stack: str) -> bool:
    """Clear the lock of an engine that is dead. Only the file backend's locks say whose they are.

    Raises:
        RunError: somebody alive, or on another machine, holds it.
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
    """The checkpoint is written beside and renamed, the file with its type and sum is not: half of that reads as an error.

    Source: gocloud.dev/blob/fileblob, which does without that file. Seen when an engine was killed while it wrote.
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
    """Providers and programs that outlived their engine: nobody of Pulumi is their parent, nobody listens where they were told."""
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
    """Whether connections to an address among these are refused: a busy engine would only be slow."""
    for host, _, port in (word.rpartition(":") for word in words):
        if host and port.isdigit():
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except ConnectionRefusedError:
                return True
            except OSError:
                pass
    return False


# ---------------------------------------------------------------------- what it was doing


def _switch_again(location: Location, left: Mapping[str, Any], pending: Collection[Mapping[str, Any]]) -> None:
    """On Docker a switch that was cut off may have moved traffic: the last one that is known is done once more."""
    if not any(_name(each).startswith("switch-") for each in pending):
        return
    known = parse({"deployment": left})
    last = observe(known).switches
    for entry in known.entries:
        if entry.name == f"switch-{last}":
            engine.run_again(location, str(entry.inputs["name"]))
            print(f"  done once more: {entry.name}, to {entry.labels['tiers.slot']}")


def _settle(stack: str, resources: Collection[Mapping[str, Any]], pending: Collection[Mapping[str, Any]]) -> None:
    """What was being changed or deleted is read from the platform; what was being created has been removed."""
    there = {each["urn"] for each in resources}
    doubtful = sorted({each["resource"]["urn"] for each in pending if each["type"] != "creating"} & there)
    # With nothing to read it is the stack itself, which no provider has to be asked about.
    targets = doubtful or [each["urn"] for each in resources if each["type"] == "pulumi:pulumi:Stack"]
    words = [word for urn in targets for word in ("--target", urn)]
    pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack, *words)
    for each in pending:
        print(f"  settled: {each['type']} {_name(each)}")


def _name(operation: Mapping[str, Any]) -> str:
    return str(operation["resource"]["urn"]).rpartition("::")[2]


if __name__ == "__main__":
    words = edge.arguments("heal STACK", 1, 1)
    edge.end("heal", lambda: main(*words))
