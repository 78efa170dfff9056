"""What waits for a tier, the smoke test and the switch run inside a container: `python3 -c <this file> VERB ARGUMENT …`.

Standard library only, one file: it travels as the container's command, so that no image has to be built for it.
"""

import http.client
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

LOADED = "haproxy.cfg.loaded"
"""Beside the gateway's configuration while that is replaced: the one its processes have loaded."""


def reach(within: str, *addresses: str) -> str:
    """Every HOST:PORT takes a connection from here, within so many seconds."""
    deadline = time.monotonic() + float(within)
    for address in addresses:
        host, _, port = address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{address} can't be reached: {error}") from None
                time.sleep(0.1)
    return f"reached {' '.join(addresses)}"


def smoke(gateway: str, host: str, slot: str, within: str, checks: str) -> str:
    """Ask `slot` through the gateway for each of `checks` (JSON), until all are answered as they say.

    Args:
        host: the name to ask for, as users do.
        within: seconds until the last of them must be answered.
        checks: mappings with a `path`, the config path that names it (`name`) and the answer; without `status` any below 400.

    Raises:
        SystemExit: one is not, with its config path and the answer.
    """
    deadline = time.monotonic() + float(within)
    wanted: list[dict[str, Any]] = json.loads(checks)
    for check in wanted:
        while (problem := ask(gateway, host, slot, check)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if problem:
            raise SystemExit(f"{check['name']}: {problem}")
    return f"{slot} answers {' '.join(check['path'] for check in wanted)}"


def ask(gateway: str, host: str, slot: str, wanted: Mapping[str, Any]) -> str:
    """What is wrong with the answer to a path, if anything is. Without a slot it is asked as users ask."""
    try:
        connection = _connected(urlsplit(gateway), host)
        connection.request("GET", wanted["path"], headers={"X-Tiers-Slot": slot} if slot else {})
        answer = connection.getresponse()
        text = answer.read(2**20).decode(errors="replace") if "contains" in wanted else ""
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    status, served, part = wanted.get("status"), answer.headers.get("X-Tiers-Slot"), wanted.get("contains")
    if status is None and answer.status >= 400:
        return f"HTTP {answer.status}"
    if status not in (None, answer.status):
        return f"HTTP {answer.status}, and {status} is wanted"
    # What the gateway refuses by itself comes from no slot.
    if slot and served != slot and (served or answer.status < 400):
        return f"answered by {served}, not by {slot}"
    for name, value in wanted.get("headers", {}).items():
        if (came := answer.headers.get(name)) != value:
            return f"{name} is {came or 'not there'}, and {value} is wanted"
    return "" if part is None or part in text else f"{part!r} is wanted in it, and it begins with {text[:80]!r}"


def _connected(url: SplitResult, host: str) -> http.client.HTTPConnection:
    """A connection to the address in `url` that asks for `host`, as if that were where it leads.

    The certificate counts where `url` is the host's own; by an address inside of a cluster nobody has to vouch for it.
    """
    secure = url.scheme == "https"
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.sock = socket.create_connection((url.hostname, url.port or (443 if secure else 80)), timeout=10)
    if secure:
        context = ssl.create_default_context()
        if url.hostname != host:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    return connection


def route(folder: str, within: str, key: str, value: str = "", configuration: str = "") -> str:
    """Set `key` of the gateway's map to `value`, in its file and in every running process, and load a configuration.

    `live` names the slot of new requests, a slot's name the release that its pages are of; no value removes the key. A
    configuration that is loaded already is left alone. A reload loses no request: open connections stay with their process.
    One that fails puts back the configuration that was loaded last.

    Args:
        folder: what the gateway keeps: its map, its configuration and its sockets.
        within: seconds until it must have done all of that.
        configuration: the text of haproxy.cfg, one that `haproxy -c` accepts.

    Raises:
        SystemExit: the gateway has not done it in time, or refuses the configuration.
    """
    deadline = time.monotonic() + float(within)
    path = f"{folder}/live.map"
    lines = [line for line in _read(path).splitlines() if line.split()[:1] != [key]]
    _write(path, "\n".join([*lines, *([f"{key} {value}"] if value else []), ""]))
    if configuration and not _answers(folder):
        # A gateway that can't start with the file it has gets this one; the engine starts it again by itself.
        _place(folder, configuration)
    _until(lambda: _told(folder, key, value), deadline)
    if configuration:
        _load(folder, configuration, deadline)
    return f"{key} {value or 'nothing'}"


def restore(folder: str, configuration: str) -> str:
    """Write the configuration of a gateway that does not run: it can't start with the one it has."""
    _write(f"{folder}/haproxy.cfg", configuration)
    with suppress(FileNotFoundError):
        os.unlink(f"{folder}/{LOADED}")
    return "restored"


def _answers(folder: str) -> bool:
    """Tell if the gateway takes commands, after a moment for one that is starting."""
    for _ in range(20):
        try:
            return bool(_tell(f"{folder}/master.sock", "show proc"))
        except OSError:
            time.sleep(0.1)
    return False


def _place(folder: str, configuration: str) -> None:
    """Write haproxy.cfg, and keep the one that was loaded last until this one is: it tells a claim that was cut off."""
    if not os.path.exists(f"{folder}/{LOADED}"):
        _write(f"{folder}/{LOADED}", _read(f"{folder}/haproxy.cfg"))
    _write(f"{folder}/haproxy.cfg", configuration)


def _load(folder: str, configuration: str, deadline: float) -> None:
    if _read(f"{folder}/haproxy.cfg") == configuration and not os.path.exists(f"{folder}/{LOADED}"):
        return
    state = _tell(f"{folder}/admin.sock", "show servers state")
    _write(f"{folder}/servers.state", carried_over(state, configuration))
    _place(folder, configuration)
    try:
        _reload(folder, deadline)
    except SystemExit:
        # The processes from before still serve; a restart and the next claim find what those have loaded.
        os.replace(f"{folder}/{LOADED}", f"{folder}/haproxy.cfg")
        with suppress(OSError):
            _tell(f"{folder}/master.sock", "reload")
        raise
    os.unlink(f"{folder}/{LOADED}")


def carried_over(state: str, configuration: str) -> str:
    """Return the lines of `show servers state` about servers that have the same port in the new configuration.

    HAProxy would give the others the port they had before (2.6 management guide, "show servers state": srv_port).
    """
    version, names, *servers = state.strip().splitlines()
    ports: dict[str, str] = {}
    backend = ""
    for line in configuration.splitlines():
        words = line.split()
        if words[:1] == ["backend"]:
            backend = words[1]
        elif words[:1] == ["server-template"]:
            ports[backend] = words[3].rpartition(":")[2]
    columns = names.removeprefix("#").split()
    name, port = columns.index("be_name"), columns.index("srv_port")
    same = [line for line in servers if (found := line.split()) and ports.get(found[name]) == found[port]]
    return "\n".join([version, names, *same, ""])


def _reload(folder: str, deadline: float) -> None:
    before, failed = _workers(folder), _failed(folder)
    _tell(f"{folder}/master.sock", "reload")

    def loaded() -> str:
        if _failed(folder) > failed:
            raise SystemExit("the gateway refuses the configuration, and its log says why; it has the one from before")
        return "" if set(_workers(folder)) - set(before) else "its processes are the same as before"

    _until(loaded, deadline)


def live(folder: str) -> str:
    """Return the slot that new requests go to: by the memory of the gateway's process, or by its file if none runs."""
    try:
        # The first is the process that serves; those after it only finish what they have.
        shown = _tell(f"{folder}/master.sock", f"@!{_workers(folder)[0]} show map {folder}/live.map")
        pairs = [line.split()[1:] for line in shown.splitlines()]
    except (OSError, IndexError):
        with open(f"{folder}/live.map") as file:
            pairs = [line.split() for line in file]
    return dict(pair for pair in pairs if len(pair) == 2).get("live", "none")


def _until(done: Callable[[], str], deadline: float) -> None:
    """Until it returns nothing: what it returns is what is wrong."""
    while True:
        try:
            wrong = done()
        except OSError as error:
            wrong = str(error)
        if not wrong:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the gateway did not take it: {wrong}")
        time.sleep(0.1)


def _workers(folder: str) -> list[str]:
    """The processes that serve: the one there is, and those before it that still have requests or streams."""
    lines = _tell(f"{folder}/master.sock", "show proc").splitlines()
    return [line.split()[0] for line in lines if line.split()[1:2] == ["worker"]]


def _told(folder: str, key: str, value: str) -> str:
    path, missing = f"{folder}/live.map", ""
    for worker in _workers(folder):
        command = f"set map {path} {key} {value}" if value else f"del map {path} {key}"
        answer = _tell(f"{folder}/master.sock", f"@!{worker} {command}")
        if value and "not found" in answer:
            answer = _tell(f"{folder}/master.sock", f"@!{worker} add map {path} {key} {value}")
        shown = _tell(f"{folder}/master.sock", f"@!{worker} show map {path}")
        if dict(line.split()[1:] for line in shown.splitlines()).get(key, "") != value:
            missing = f"{answer} {shown}".strip() or "it says nothing"
    return missing


def _failed(folder: str) -> int:
    """Count the reloads that have failed since the last one that did not: `1 master 3 [failed: 1] …`."""
    failed = re.search(r"\[failed: (\d+)\]", _tell(f"{folder}/master.sock", "show proc"))
    return int(failed[1]) if failed else 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def _tell(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(f"{command}\n".encode())
        # The master waits for more otherwise.
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(4096):
            answer += part
    return answer.decode().strip()


if __name__ == "__main__":
    verbs = {"reach": reach, "smoke": smoke, "route": route, "restore": restore, "live": live}
    print(verbs[sys.argv[1]](*sys.argv[2:]))
