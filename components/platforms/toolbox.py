"""What the smoke test and the switch run inside a container: `python3 -c <this file> VERB ARGUMENT …`.

Standard library only, one file: it travels as the container's command, so that no image has to be built for it.
"""

import os
import socket
import sys
import time
import urllib.error
import urllib.request


def smoke(gateway: str, slot: str, within: str, *paths: str) -> str:
    """Every path answers below 400 through the real gateway from `slot`, within so many seconds."""
    deadline = time.monotonic() + float(within)
    for path in paths:
        while (problem := _ask(gateway + path, slot)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if problem:
            raise SystemExit(f"{path}: {problem}")
    return f"{slot} answers {' '.join(paths)}"


def _ask(url: str, slot: str) -> str:
    try:
        request = urllib.request.Request(url, headers={"X-Tiers-Slot": slot})
        with urllib.request.urlopen(request, timeout=10) as answer:
            served = answer.headers.get("X-Tiers-Slot")
            return "" if served == slot else f"answered by {served}, not by {slot}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        return str(error)


def switch(folder: str, slot: str, within: str) -> str:
    """The gateway sends new requests to `slot`: in its map file for a restart, and in its memory for now."""
    deadline = time.monotonic() + float(within)
    _write(f"{folder}/live.map", f"live {slot}\n")
    while True:
        try:
            answer = _tell(f"{folder}/admin.sock", f"set map {folder}/live.map live {slot}")
            shown = _tell(f"{folder}/admin.sock", f"show map {folder}/live.map")
        except OSError as error:
            answer = shown = str(error)
        if shown.split()[-2:] == ["live", slot]:
            return f"live {slot}"
        if time.monotonic() > deadline:
            raise SystemExit(f"the gateway did not take the switch: {answer} {shown}".strip())
        time.sleep(0.1)


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
        answer = b""
        while part := client.recv(4096):
            answer += part
    return answer.decode().strip()


if __name__ == "__main__":
    print({"smoke": smoke, "switch": switch}[sys.argv[1]](*sys.argv[2:]))
