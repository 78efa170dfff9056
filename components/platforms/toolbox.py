"""What waits for a tier, the smoke test and the switch run inside a container: `python3 -c <this file> VERB ARGUMENT …`.

Standard library only, one file: it travels as the container's command, so that no image has to be built for it.
"""

import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit


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


def smoke(gateway: str, host: str, slot: str, within: str, checks: str, *paths: str) -> str:
    """Through the real gateway `slot` answers every path below 400, and each of `checks` (JSON) as it wants to be answered.

    They are asked as `host`, and all have to be well within so many seconds.
    """
    deadline = time.monotonic() + float(within)
    wanted: list[dict[str, Any]] = [*({"path": path} for path in paths), *json.loads(checks)]
    for each in wanted:
        while (problem := ask(gateway, host, slot, each)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if problem:
            raise SystemExit(f"{each['path']}: {problem}")
    return f"{slot} answers {' '.join(each['path'] for each in wanted)}"


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
    """The gateway's map says `value` of `key`: in its file for a restart, and in the memory of all its processes for now.

    `live` says which slot new requests go to, a slot's name which release its pages are of: no value, nobody's. With a
    configuration that is not the one it has, the gateway takes that, too, and loses no request: those who are connected
    stay with the process they have until they have their answer.
    """
    deadline = time.monotonic() + float(within)
    path = f"{folder}/live.map"
    with open(path) as file:
        lines = [line for line in file.read().splitlines() if line.split()[:1] != [key]]
    _write(path, "\n".join([*lines, *([f"{key} {value}"] if value else []), ""]))
    _until(lambda: _told(folder, key, value), deadline)
    with open(f"{folder}/haproxy.cfg") as file:
        same = configuration in ("", file.read())
    if not same:
        _write(f"{folder}/haproxy.cfg", configuration)
        before = _workers(folder)
        _write(f"{folder}/servers.state", _tell(f"{folder}/admin.sock", "show servers state") + "\n")
        _tell(f"{folder}/master.sock", "reload")
        _until(lambda: _taken(folder, before), deadline)
    return f"{key} {value or 'nothing'}"


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


def _taken(folder: str, before: list[str]) -> str:
    return "" if set(_workers(folder)) - set(before) else "its processes are the same as before"


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
    print({"reach": reach, "smoke": smoke, "route": route}[sys.argv[1]](*sys.argv[2:]))
