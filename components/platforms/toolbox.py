"""Commands of the toolbox container: wait for a service, run the smoke test, change the gateway's routes.

Usage: `python3 -c TEXT COMMAND ARGUMENT …`, where TEXT is the text of this file. The text is part of the container's command, so no
image has to be built. The file uses only the standard library.
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

LOADED_CONFIGURATION = "haproxy.cfg.loaded"
"""File name of the configuration that the gateway's processes have loaded. The file exists only while haproxy.cfg is being replaced."""


def reach(timeout: str, *addresses: str) -> str:
    """Wait until every address (HOST:PORT) accepts a connection.

    Args:
        timeout: seconds until the last address must accept a connection.
        addresses: the addresses to connect to.

    Raises:
        SystemExit: an address does not accept a connection in time.
    """
    deadline = time.monotonic() + float(timeout)
    for address in addresses:
        host, _, port = address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{address} can't be reached: {error}; check that this server runs") from None
                time.sleep(0.1)
    return f"reached {' '.join(addresses)}"


def smoke(gateway: str, host: str, slot: str, timeout: str, checks: str) -> str:
    """Send the requests of the smoke test to a slot, and repeat each one until its response is as expected.

    Args:
        gateway: URL of the gateway.
        host: host name of requests without `host`. Users' requests have the same host name.
        slot: the slot that must respond.
        timeout: seconds until the last response must be as expected.
        checks: JSON list of mappings. Each mapping has a `path`, the config path that is printed in errors (`name`), and the
            expected response. Without `status`, any status below 400 is expected. `host` is the host name of this request.

    Raises:
        SystemExit: a response is not as expected. The message has the config path and the response.
    """
    deadline = time.monotonic() + float(timeout)
    requests: list[dict[str, Any]] = json.loads(checks)
    for request in requests:
        while (
            problem := response_problem(gateway, request.get("host", host), slot, request)
        ) and time.monotonic() < deadline:
            time.sleep(0.1)
        if problem:
            raise SystemExit(f"{request['name']}: {problem}")
    return f"{slot} answers {' '.join(request['path'] for request in requests)}"


def response_problem(gateway: str, host: str, slot: str, expected: Mapping[str, Any]) -> str:
    """Send one GET request, and return the difference between the response and the expected response.

    Args:
        gateway: URL of the gateway.
        host: host name of the request.
        slot: the slot that must respond; empty to send the request as users do, to the live slot.
        expected: the `path` to request, and any of `status`, `headers` and `contains` (a part of the body).

    Returns:
        The first difference, or an empty text if the response is as expected.
    """
    try:
        connection = _connect(urlsplit(gateway), host)
        connection.request("GET", expected["path"], headers={"X-Tiers-Slot": slot} if slot else {})
        response = connection.getresponse()
        body = response.read(2**20).decode(errors="replace") if "contains" in expected else ""
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    status, serving_slot, part = expected.get("status"), response.headers.get("X-Tiers-Slot"), expected.get("contains")
    if status is None and response.status >= 400:
        return f"HTTP {response.status}"
    if status not in (None, response.status):
        return f"HTTP {response.status}, expected {status}"
    # The gateway's own error responses have no slot.
    if slot and serving_slot != slot and (serving_slot or response.status < 400):
        return f"answered by {serving_slot or 'no slot'}, not by {slot}"
    for name, value in expected.get("headers", {}).items():
        if (actual := response.headers.get(name)) != value:
            return f"header {name} is {actual or 'missing'}, expected {value}"
    return "" if part is None or part in body else f"the body does not contain {part!r}, it begins with {body[:80]!r}"


def _connect(url: SplitResult, host: str) -> http.client.HTTPConnection:
    """Connect to the address in `url`, and use `host` as the host name of the requests and of TLS.

    Verify the certificate only if `url` contains `host`. If `url` contains an address inside the cluster, the certificate is not verified.
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


def route(folder: str, timeout: str, key: str, value: str = "", configuration: str = "") -> str:
    """Set a key of the gateway's map, in the map file and in every running process. Then load a configuration.

    The key `live` has the slot that gets new requests. The name of a slot is the key of this slot's release.

    If the configuration is already loaded, the gateway is not reloaded. A reload loses no request, because open connections stay
    with the old process. If a reload fails, the last loaded configuration is restored.

    Args:
        folder: the gateway's folder with its map, configuration and sockets.
        timeout: seconds until all changes must be complete.
        key: `live` or the name of a slot.
        value: the new value of the key; empty to remove the key.
        configuration: text of haproxy.cfg that `haproxy -c` accepts; empty to keep the configuration.

    Raises:
        SystemExit: the changes are not complete in time, or the gateway refuses the configuration.
    """
    deadline = time.monotonic() + float(timeout)
    path = f"{folder}/live.map"
    lines = [line for line in _read(path).splitlines() if line.split()[:1] != [key]]
    _write(path, "\n".join([*lines, *([f"{key} {value}"] if value else []), ""]))
    if configuration and not _accepts_commands(folder):
        # The gateway may be unable to start with its present file. The engine restarts it, and it then reads the new file.
        _replace_configuration(folder, configuration)
    _retry(lambda: _update_processes(folder, key, value), deadline)
    if configuration:
        _load_configuration(folder, configuration, deadline)
    return f"{key} {value}" if value else f"{key} removed"


def restore(folder: str, configuration: str) -> str:
    """Write a valid configuration for a gateway that can't start with its present one."""
    _write(f"{folder}/haproxy.cfg", configuration)
    with suppress(FileNotFoundError):
        os.unlink(f"{folder}/{LOADED_CONFIGURATION}")
    return "restored"


def _accepts_commands(folder: str) -> bool:
    """Return True if the gateway accepts commands. Wait up to two seconds for a gateway that is starting."""
    for _ in range(20):
        try:
            return bool(_send(f"{folder}/master.sock", "show proc"))
        except OSError:
            time.sleep(0.1)
    return False


def _replace_configuration(folder: str, configuration: str) -> None:
    """Write haproxy.cfg, and keep a copy of the last loaded configuration until the new one is loaded.

    The copy shows that a replacement was interrupted. The next call of `route` then loads haproxy.cfg.
    """
    if not os.path.exists(f"{folder}/{LOADED_CONFIGURATION}"):
        _write(f"{folder}/{LOADED_CONFIGURATION}", _read(f"{folder}/haproxy.cfg"))
    _write(f"{folder}/haproxy.cfg", configuration)


def _load_configuration(folder: str, configuration: str, deadline: float) -> None:
    if _read(f"{folder}/haproxy.cfg") == configuration and not os.path.exists(f"{folder}/{LOADED_CONFIGURATION}"):
        return
    state = _send(f"{folder}/admin.sock", "show servers state")
    _write(f"{folder}/servers.state", reusable_server_states(state, configuration))
    _replace_configuration(folder, configuration)
    try:
        _reload(folder, deadline)
    except SystemExit:
        # The old processes still serve requests. Restore the file that they have loaded, for the next restart and the next release.
        os.replace(f"{folder}/{LOADED_CONFIGURATION}", f"{folder}/haproxy.cfg")
        with suppress(OSError):
            _send(f"{folder}/master.sock", "reload")
        raise
    os.unlink(f"{folder}/{LOADED_CONFIGURATION}")


def reusable_server_states(state: str, configuration: str) -> str:
    """Return the lines of `show servers state` about servers that have the same port in the new configuration.

    For all other servers HAProxy would use the port of the old configuration (2.6 management guide, "show servers state": srv_port).
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
    reusable = [line for line in servers if (values := line.split()) and ports.get(values[name]) == values[port]]
    return "\n".join([version, names, *reusable, ""])


def _reload(folder: str, deadline: float) -> None:
    old_workers, old_failures = _workers(folder), _failed_reloads(folder)
    _send(f"{folder}/master.sock", "reload")

    def reload_problem() -> str:
        if _failed_reloads(folder) > old_failures:
            raise SystemExit(
                "the gateway refuses the configuration and keeps the previous one; read the gateway's log for the reason"
            )
        return "" if set(_workers(folder)) - set(old_workers) else "no new process has started"

    _retry(reload_problem, deadline)


def live(folder: str) -> str:
    """Return the slot that gets new requests, or `none`.

    Read the slot from the memory of the gateway's process. If no process runs, read the map file.
    """
    try:
        # The first process serves new requests. The others only complete open requests.
        entries = _send(f"{folder}/master.sock", f"@!{_workers(folder)[0]} show map {folder}/live.map")
        pairs = [line.split()[1:] for line in entries.splitlines()]
    except (OSError, IndexError):
        with open(f"{folder}/live.map") as file:
            pairs = [line.split() for line in file]
    return dict(pair for pair in pairs if len(pair) == 2).get("live", "none")


def _retry(attempt: Callable[[], str], deadline: float) -> None:
    """Call `attempt` until it succeeds. `attempt` returns the problem as text, or an empty text for success.

    Raises:
        SystemExit: there is still a problem at the deadline.
    """
    while True:
        try:
            problem = attempt()
        except OSError as error:
            problem = str(error)
        if not problem:
            return
        if time.monotonic() > deadline:
            raise SystemExit(
                f"the gateway did not apply the change in time: {problem}; check that the gateway runs, and read its log"
            )
        time.sleep(0.1)


def _workers(folder: str) -> list[str]:
    """Return the ids of the gateway's processes: first the process of new requests, then processes that still have open requests."""
    lines = _send(f"{folder}/master.sock", "show proc").splitlines()
    return [line.split()[0] for line in lines if line.split()[1:2] == ["worker"]]


def _update_processes(folder: str, key: str, value: str) -> str:
    """Set or remove a key in the map of every process. Return the responses of a process that does not have the new value."""
    path, problem = f"{folder}/live.map", ""
    for worker in _workers(folder):
        command = f"set map {path} {key} {value}" if value else f"del map {path} {key}"
        response = _send(f"{folder}/master.sock", f"@!{worker} {command}")
        if value and "not found" in response:
            response = _send(f"{folder}/master.sock", f"@!{worker} add map {path} {key} {value}")
        entries = _send(f"{folder}/master.sock", f"@!{worker} show map {path}")
        if dict(line.split()[1:] for line in entries.splitlines()).get(key, "") != value:
            problem = f"{response} {entries}".strip() or "empty response"
    return problem


def _failed_reloads(folder: str) -> int:
    """Return the number of failed reloads since the last successful one. The output is like `1 master 3 [failed: 1] …`."""
    count = re.search(r"\[failed: (\d+)\]", _send(f"{folder}/master.sock", "show proc"))
    return int(count[1]) if count else 0


def _read(path: str) -> str:
    """Return the text of a file, or an empty text if the file does not exist."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    """Replace a file in one step, so that no reader sees a part of the text."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def _send(socket_path: str, command: str) -> str:
    """Send a command to a socket of HAProxy, and return the response."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(socket_path)
        client.sendall(f"{command}\n".encode())
        # Without this the master process waits for more commands.
        client.shutdown(socket.SHUT_WR)
        response = b""
        while part := client.recv(4096):
            response += part
    return response.decode().strip()


if __name__ == "__main__":
    commands = {"reach": reach, "smoke": smoke, "route": route, "restore": restore, "live": live}
    print(commands[sys.argv[1]](*sys.argv[2:]))
