"""Changes that the cluster makes to this machine: bridge, firewall rules, kernel settings, mounts.

`revert_changes` and `unmount` revert these changes.
"""

import ipaddress
import json
import subprocess
from pathlib import Path

from .steps import CACHE, LabError, command_output, sh

BRIDGE = "tiers-pods"
PODS = "10.42.0.0/24"
NODE = "10.42.0.1"
SERVICES = "10.43.0.0/16"
API_PORT = 6443
SAVED = CACHE / "cluster" / "settings.json"
# Settings that the kubelet, kube-proxy and `prepare` change for the whole machine.
SETTINGS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
)
# Prefixes of the firewall chains that the lab creates (TIERS-), or that kube-proxy, the kubelet and CNI's portmap create.
CHAINS = ("TIERS-", "KUBE-", "CNI-")
TABLES = ("filter", "nat", "mangle")
# Firewall rules. They accept forwarded packets of pods, which Docker's rules would drop. They let only pods and this
# machine connect to the node's address. They redirect 127.0.0.1 to the API server, so that the kubeconfig works without
# the bridge's address. They reject packets to a Service's address that kube-proxy has not translated, because such packets
# would leave the machine by the default route.
RULES = f"""
*filter
:TIERS-FORWARD - [0:0]
:TIERS-INPUT - [0:0]
:TIERS-OUTPUT - [0:0]
-A TIERS-FORWARD -d {SERVICES} -j REJECT
-A TIERS-OUTPUT -d {SERVICES} -j REJECT
-A TIERS-FORWARD -s {PODS} -j ACCEPT
-A TIERS-FORWARD -d {PODS} -j ACCEPT
-A TIERS-INPUT -i lo -j RETURN
-A TIERS-INPUT -i {BRIDGE} -j ACCEPT
-A TIERS-INPUT -d {NODE} -j DROP
-I FORWARD -j TIERS-FORWARD
-I INPUT -j TIERS-INPUT
-I OUTPUT -j TIERS-OUTPUT
COMMIT
*nat
:TIERS-OUTPUT - [0:0]
:TIERS-POSTROUTING - [0:0]
-A TIERS-OUTPUT -d 127.0.0.1 -p tcp --dport {API_PORT} -j DNAT --to-destination {NODE}
-A TIERS-POSTROUTING -s {PODS} ! -d {PODS} -j MASQUERADE
-I OUTPUT -j TIERS-OUTPUT
-I POSTROUTING -j TIERS-POSTROUTING
COMMIT
"""


def prepare() -> None:
    """Create the pods' network: the bridge, IP forwarding and the firewall rules. A second call changes nothing."""
    _refuse_if_routed()
    if not SAVED.exists():
        SAVED.parent.mkdir(parents=True, exist_ok=True)
        SAVED.write_text(json.dumps({name: _setting(name).read_text() for name in SETTINGS}))
    _setting("net/ipv4/ip_forward").write_text("1")
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        sh("ip", "link", "add", BRIDGE, "type", "bridge", log="cluster")
    sh("ip", "address", "replace", f"{NODE}/24", "dev", BRIDGE, log="cluster")
    sh("ip", "link", "set", BRIDGE, "up", log="cluster")
    _forget_rules("TIERS-")
    _restore(RULES)


def revert_changes() -> None:
    """Remove the cluster's firewall rules, bridge and cgroups from this machine, and restore the kernel settings."""
    _forget_rules(*CHAINS)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        sh("ip", "link", "delete", BRIDGE, log="cluster")
    for controller in Path("/sys/fs/cgroup").glob("**/kubepods"):
        for group in sorted((controller, *controller.rglob("*")), reverse=True):
            if group.is_dir():
                group.rmdir()
    if SAVED.exists():
        for name, value in json.loads(SAVED.read_text()).items():
            _setting(name).write_text(value)
        SAVED.unlink()


def unmount(folder: Path) -> None:
    """Unmount everything below a folder, the innermost first."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in reversed([path for path in mounted if Path(path).is_relative_to(folder)]):
        sh("umount", path, log="cluster")


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def _refuse_if_routed() -> None:
    """Raise LabError if a route of this machine overlaps with the cluster's networks."""
    routes: list[dict[str, str]] = json.loads(command_output("ip", "-json", "-4", "route") or "[]")
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        for network in (PODS, SERVICES):
            if ipaddress.ip_network(route["dst"]).overlaps(ipaddress.ip_network(network)):
                raise LabError(
                    f"this machine has a route to {route['dst']}, which overlaps with the cluster's network {network}; "
                    "remove the route"
                )


def _forget_rules(*prefixes: str) -> None:
    """Remove the chains whose names start with these prefixes, and the jumps to them from other chains."""
    for program in ("iptables", "ip6tables"):
        for table in TABLES:
            lines = (command_output(f"{program}-save", "-t", table) or "").splitlines()
            chain_names = [line.split()[0].removeprefix(":") for line in lines if line.startswith(":")]
            removed_chains = [chain for chain in chain_names if chain.startswith(prefixes)]
            jumps = [
                line.replace("-A", "-D", 1)
                for line in lines
                if line.startswith("-A")
                and line.split()[1] not in removed_chains
                and line.split("-j ")[-1].split()[0] in removed_chains
            ]
            if removed_chains:
                emptied = [f"-F {chain}" for chain in removed_chains]
                removed = [f"-X {chain}" for chain in removed_chains]
                _restore("\n".join([f"*{table}", *jumps, *emptied, *removed, "COMMIT", ""]), program)


def _restore(rules: str, program: str = "iptables") -> None:
    """Apply firewall rules in one transaction. Other rules stay unchanged."""
    result = subprocess.run(
        [f"{program}-restore", "--noflush", "--wait"], input=rules, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise LabError(f"{program}-restore refused the lab's rules: {result.stderr}")
