"""After a killed update: looks what is there, and puts the stack right. `python -m ci.heal STACK`.

An engine that was killed leaves three things (seen with Pulumi 3.256): its lock; provider processes that live on; and a
checkpoint that does not know how what it was doing has ended. Healed, whatever release is asked for next goes out
normally. What is live is not touched: what is removed is what the checkpoint does not know, and no data is.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker.errors import DockerException
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from pulumi import RunError
from urllib3.exceptions import HTTPError

from components import platforms
from components.checkpoint import observe, parse
from components.config import Environment
from components.platforms import cluster, engine

from . import edge
from .described import last_update, load, project, pulumi, state


def main(stack: str) -> None:
    unlocked = unlock(stack)
    left: dict[str, Any] = state(stack).get("deployment") or {}
    pending: list[dict[str, Any]] = left.get("pending_operations") or []
    lost = not left.get("resources") and _lost(stack)
    # A provider that died under a living engine leaves what it had made, and no other sign than that the update failed.
    if not (unlocked or pending or lost or last_update(stack).get("result") == "failed"):
        return
    # A program is an orphan once the host that started it is gone, too.
    while left_over := list(orphans()):
        for process in left_over:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            print(f"  ended process {process}, whose engine is gone")
        time.sleep(0.1)
    app, environment = load(stack)
    resources: list[dict[str, Any]] = left.get("resources") or []
    if environment.kubernetes:
        known = {_uid(each) for each in resources}
        removed = cluster.remove_strays(environment.kubernetes, f"{app.name}-{stack}", known)
    else:
        removed = engine.remove_strays(
            environment, engine.stack_labels(app.name, stack), {str(each.get("id")) for each in resources}
        )
        _switch_again(environment, left, pending)
    for name in removed:
        print(f"  removed {name}, which the checkpoint does not know")
    if pending:
        _settle(stack, resources, pending)
    if unlocked or pending or removed:
        print("  healed: run `pulumi up`, or make up")


def _lost(stack: str) -> bool:
    """Whether the stack runs and the state does not know of it, and that is said to be so: then it is made anew around its data.

    Raises:
        RunError: nobody has said so. It may be another backend that knows, and what runs there serves.
    """
    app, environment = load(stack)
    try:
        ready = platforms.ready(app, environment, stack)
    except (DockerException, ConfigException, ApiException, HTTPError):
        return False  # An engine or cluster that does not answer is the update's to explain.
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


def _switch_again(environment: Environment, left: Mapping[str, Any], pending: Collection[Mapping[str, Any]]) -> None:
    """On Docker a switch that was cut off may have moved traffic: the last one that is known is done once more."""
    if not any(_name(each).startswith("switch-") for each in pending):
        return
    known = parse({"deployment": left})
    last = observe(known).switches
    for entry in known.entries:
        if entry.name == f"switch-{last}":
            engine.run_again(environment, str(entry.inputs["name"]))
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
