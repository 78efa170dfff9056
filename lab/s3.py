"""S3 server on this machine for backups: rclone, which pods and containers reach as they would a cloud's."""

import json
import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path

from . import machine, toolchain
from .services import end, ours, start, wait_for
from .steps import CACHE, Step, answer

SERVER = "rclone"
PORT = 9000
HERE = CACHE / "s3"
BUCKET = "backups"


def steps() -> list[Step]:
    """Return the steps of the server. It starts after the cluster, because it listens on the cluster's network."""
    program = toolchain.storage()
    return [
        program,
        Step(name="s3 server", takes="2 s", needs=("cluster", program.name), present=_present, run=_start),
    ]


def stop() -> None:
    """End the server; its files stay in the cache."""
    end(SERVER)


def keys() -> tuple[str, str]:
    """Return the access key and its secret, which are generated once."""
    file = HERE / "keys.json"
    if not file.exists():
        HERE.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps([secrets.token_hex(10).upper(), secrets.token_urlsafe(30)]))
    access, secret = json.loads(file.read_text())
    return access, secret


def endpoints() -> dict[str, str]:
    """Return kind of client → URL. A rule of the cluster admits only this machine and pods to the node's address."""
    bridge = answer("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    addresses = {"machine": "127.0.0.1", "containers": bridge}
    if Path(f"/sys/class/net/{machine.BRIDGE}").exists():
        addresses["pods"] = machine.NODE
    return {who: f"http://{address}:{PORT}" for who, address in addresses.items() if address}


def _present() -> str | None:
    urls = endpoints().values()
    return f"the lab's, at {', '.join(urls)}" if ours(SERVER) and all(_answers(url) for url in urls) else None


def _answers(url: str) -> bool:
    """Tell whether a server answers, and refuses a request without a key."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return False
    except urllib.error.HTTPError as error:
        return error.code in (400, 403)
    except OSError:
        return False


def _start() -> None:
    # A server started before the cluster does not listen at the node's address.
    stop()
    folder = HERE / "data"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    listen = (f"--addr={url.removeprefix('http://')}" for url in endpoints().values())
    # Passed as a variable, because all users can read a command line. It is quoted because it is a list of pairs.
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(keys())}"', "RCLONE_CONFIG": "/dev/null"}
    start(SERVER, toolchain.PODS / SERVER, "serve", "s3", *listen, folder, env=env)
    wait_for(SERVER, _present)
