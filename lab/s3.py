"""An S3 server with files on this machine, for backups to go to: rclone, which pods and containers reach as they would a cloud's."""

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
    """The server. It comes after the cluster, whose network it is reached by."""
    program = toolchain.storage()
    return [
        program,
        Step(name="s3 server", takes="2 s", needs=("cluster", program.name), present=_present, run=_start),
    ]


def stop() -> None:
    """End the server; what it holds stays in the cache."""
    end(SERVER)


def keys() -> tuple[str, str]:
    """The access key and its secret, made once."""
    file = HERE / "keys.json"
    if not file.exists():
        HERE.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps([secrets.token_hex(10).upper(), secrets.token_urlsafe(30)]))
    access, secret = json.loads(file.read_text())
    return access, secret


def endpoints() -> dict[str, str]:
    """Who asks → where: a rule of the cluster's keeps everybody but this machine and pods from the node's address."""
    bridge = answer("docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    found = {"machine": "127.0.0.1", "containers": bridge}
    if Path(f"/sys/class/net/{machine.BRIDGE}").exists():
        found["pods"] = machine.NODE
    return {who: f"http://{address}:{PORT}" for who, address in found.items() if address}


def _present() -> str | None:
    where = endpoints().values()
    return f"the lab's, at {', '.join(where)}" if ours(SERVER) and all(_answers(each) for each in where) else None


def _answers(url: str) -> bool:
    """Whether it refuses who has no key."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return False
    except urllib.error.HTTPError as error:
        return error.code in (400, 403)
    except OSError:
        return False


def _start() -> None:
    # One from before the cluster was started does not listen at the node's address.
    stop()
    folder = HERE / "data"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    listen = (f"--addr={url.removeprefix('http://')}" for url in endpoints().values())
    # Not a word of the command line, which everybody may read; in quotes, for it is a list of pairs.
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(keys())}"', "RCLONE_CONFIG": "/dev/null"}
    start(SERVER, toolchain.PODS / SERVER, "serve", "s3", *listen, folder, env=env)
    wait_for(SERVER, _present)
