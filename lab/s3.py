"""S3 server for backups: rclone, as a process of this machine. Pods and containers reach the server over the network."""

import json
import os
import secrets
import urllib.error
import urllib.request
from ipaddress import ip_network
from pathlib import Path

from . import machine, toolchain
from .services import lab_process, start, stop_process, wait_for
from .steps import CACHE, Step, command_output

SERVER = "rclone"
PORT = 9000
HERE = CACHE / "s3"
BUCKET = "backups"


def steps() -> list[Step]:
    """Return the steps that build and start the server.

    The server needs the started cluster, because it listens on the cluster's network.
    """
    program = toolchain.storage()
    return [
        program,
        Step(name="s3 server", takes="2 s", needs=("cluster", program.name), present=_present, run=_start),
    ]


def stop() -> None:
    """Stop the server. Its files stay in the cache."""
    stop_process(SERVER)


def keys() -> tuple[str, str]:
    """Return the access key and the secret key. The first call generates both keys."""
    file = HERE / "keys.json"
    if not file.exists():
        HERE.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps([secrets.token_hex(10).upper(), secrets.token_urlsafe(30)]))
    access, secret = json.loads(file.read_text())
    return access, secret


def endpoints() -> dict[str, str]:
    """Return the server's URL for each kind of client: this machine, containers and pods.

    Because of a firewall rule, only pods and this machine can connect to the URL for pods.
    """
    addresses = {"machine": "127.0.0.1", "containers": _bridge_address()}
    if Path(f"/sys/class/net/{machine.BRIDGE}").exists():
        addresses["pods"] = machine.NODE
    return {client: f"http://{address}:{PORT}" for client, address in addresses.items() if address}


def _bridge_address() -> str:
    """Return this machine's address in the engine's default network, or an empty text without an engine.

    `docker network inspect` shows no gateway until the engine that created the network restarts. In this case the gateway has
    the first address of the subnet.
    """
    shown = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}}{{end}}"
    text = command_output("docker", "network", "inspect", "bridge", "--format", shown) or ""
    subnet, _, gateway = text.partition(" ")
    return gateway or (str(next(ip_network(subnet).hosts())) if subnet else "")


def _present() -> str | None:
    urls = endpoints().values()
    return f"the lab's, at {', '.join(urls)}" if lab_process(SERVER) and all(_answers(url) for url in urls) else None


def _answers(url: str) -> bool:
    """Return True if the server answers and refuses a request without a key."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return False
    except urllib.error.HTTPError as error:
        return error.code in (400, 403)
    except OSError:
        return False


def _start() -> None:
    # Stop a running server, because a server started before the cluster does not listen at the node's address.
    stop()
    folder = HERE / "data"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    listen = (f"--addr={url.removeprefix('http://')}" for url in endpoints().values())
    # Pass the keys in a variable, because every user of the machine can read command lines. rclone parses the value as
    # CSV, so the pair needs quotes.
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(keys())}"', "RCLONE_CONFIG": "/dev/null"}
    start(SERVER, toolchain.PODS / SERVER, "serve", "s3", *listen, folder, env=env)
    wait_for(SERVER, _present)
