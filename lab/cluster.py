"""Kubernetes cluster with one node. Its programs run as processes of this machine, and its gateway listens at 127.0.0.1.

`down` keeps the cluster's state in the cache. To reset the cluster, run `down`, delete `~/.cache/tiers/cluster`, and run
`up`.

The node is in zone `a`. Tests can add Node objects in other zones by hand. The scheduler counts these nodes when it
spreads pods, but no pod runs on them.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from string import Template

from . import engine, machine, toolchain
from .services import lab_process, packages, start, stop_process, wait_for
from .steps import CACHE, LabError, Step, command_output, sh

FILES = Path(__file__).parent / "kubernetes"
HERE = CACHE / "cluster"
KEYS = HERE / "keys"
KUBECONFIG = HERE / "kubeconfig"
SOCKET = HERE / "containerd.sock"
KUBECTL = toolchain.BIN / "kubectl"
NAME = "lab"
ARCHITECTURE = os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64")
NODE = machine.NODE
DNS = "10.43.0.10"
API_PORT, ETCD_PORT, HTTP_PORT, HTTPS_PORT = machine.API_PORT, 12379, 8000, 8443
API = f"https://127.0.0.1:{API_PORT}"
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "host-local": "containernetworking-plugins",
    "docker-registry": "docker-registry",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
}
UNSUPPORTED = (
    "the lab can start a cluster only as root on Debian (this is {system}); "
    "use your own cluster, and set KUBECONFIG to its kubeconfig"
)
# Program → subject and addresses of its certificate.
PROGRAMS = {
    "kube-apiserver": (
        "/CN=kube-apiserver",
        f"IP:127.0.0.1,IP:{NODE},IP:10.43.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
        "DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
    ),
    "etcd": ("/CN=etcd", "IP:127.0.0.1"),
    "kubelet": (f"/O=system:nodes/CN=system:node:{NAME}", f"IP:{NODE},DNS:{NAME}"),
    "admin": ("/O=system:masters/CN=admin", ""),
    "kube-controller-manager": ("/CN=system:kube-controller-manager", ""),
    "kube-scheduler": ("/CN=system:kube-scheduler", ""),
    "kube-proxy": ("/CN=system:kube-proxy", ""),
    "front-proxy": ("/CN=front-proxy", ""),
}
# Processes of the cluster, in the order in which they are stopped.
PROCESSES = ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "cluster-etcd")
IMAGES = ("pause", "coredns", "local-path-provisioner", "metrics-server", "traefik")
NAMESPACES = ("kube-system", "local-path-storage", "gateway")


def steps() -> list[Step]:
    """Return the steps that start the cluster, or a step that does nothing if the context `lab` belongs to another cluster."""
    if existing := foreign_cluster():
        return [Step(name="cluster", takes="", present=lambda: existing, run=lambda: None)]
    programs = toolchain.cluster()
    return [
        packages("cluster packages", PACKAGES, UNSUPPORTED),
        engine.registry("cluster packages"),
        *programs,
        Step(
            name="cluster",
            takes="40 s",
            needs=("cluster packages", "registry mirror", *(program.name for program in programs)),
            present=_present,
            run=_start,
        ),
    ]


def stop() -> None:
    """Stop the cluster's processes and pods, and remove its mounts and firewall rules. State and data stay in the cache."""
    stop_process("kubelet")
    if lab_process("cluster-containerd") or _has_orphaned_pods():
        _containerd()
        sh(_program("clear"), f"unix://{SOCKET}", log="cluster")
    for name in (*PROCESSES, "cluster-containerd"):
        # The API server waits up to a minute for its clients to disconnect. Its state is in etcd, so killing it is safe.
        stop_process(name, patience=5)
    machine.unmount(HERE)
    machine.revert_changes()
    # Remove the kubelet's links from this folder. The kubelet has no setting for another folder.
    for link in Path("/var/log/containers").glob("*.log"):
        if link.readlink().is_relative_to(HERE):
            link.unlink()


# ---------------------------------------------------------------------- state


def foreign_cluster() -> str | None:
    """Return a description of a running cluster that uses the lab's context name but is not the lab's, or None.

    The function searches the files in KUBECONFIG, except the lab's own file.
    """
    for file in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        is_foreign = file and Path(file) != KUBECONFIG and Path(file).is_file()
        if (
            is_foreign
            and command_output("kubectl", "--kubeconfig", file, "--context", NAME, "get", "--raw", "/readyz")
            is not None
        ):
            return f"context {NAME} of {file}, not the lab's"
    return None


def _present() -> str | None:
    if lab_process("kube-apiserver") and _ready() and _gateway_answers():
        return f"the lab's, context {NAME} of {KUBECONFIG}"
    return None


def _ready() -> bool:
    """Return True if the API server reports that it is ready."""
    try:
        trust = ssl.create_default_context(cafile=str(KEYS / "ca.crt"))
        with urllib.request.urlopen(f"{API}/readyz", timeout=2, context=trust):
            return True
    except OSError:
        return False


def _gateway_answers() -> bool:
    """Return True if the gateway answers. An error for an unknown host counts as an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _has_orphaned_pods() -> bool:
    """Return True if pods may still be running after containerd ended unexpectedly."""
    return any((HERE / "containerd" / "state" / "io.containerd.runtime.v2.task").glob("*/*"))


def _refuse_if_taken() -> None:
    if any(lab_process(name) for name in PROCESSES):
        return
    for port in (API_PORT, ETCD_PORT, HTTP_PORT, HTTPS_PORT):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                raise LabError(
                    f"another process listens at 127.0.0.1:{port}, which the cluster needs; stop that process"
                )


# ---------------------------------------------------------------------- start


def _start() -> None:
    _refuse_if_taken()
    machine.prepare()
    _programs()
    _certificates()
    for file in (FILES / "node").iterdir():
        render(file, HERE / "node" / file.name)
    for registry, file in (("docker.io", "docker.io.toml"), (engine.REGISTRY, "registry.toml")):
        render(FILES / "node" / file, HERE / "registries" / registry / "hosts.toml")
    _etcd()
    _api_server()
    _containerd()
    _images()
    _node()
    _apply()
    _wait("the gateway", _gateway_answers)


def _run(name: str, *command: str | Path) -> None:
    """Start a process of the cluster unless it is already running, so that an interrupted start can continue."""
    if not lab_process(name):
        start(name, *command)


def _kube(name: str, **flags: str | Path | int) -> None:
    words = (f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items())
    _run(name, _program(name), *words)


def _program(name: str) -> Path:
    return HERE / "bin" / name


def _programs() -> None:
    """Create a link for each Kubernetes program. All links point to one binary, which contains all programs."""
    links = [
        *(_program(name) for name in (*PROCESSES, "clear") if name != "cluster-etcd"),
        KUBECTL,
    ]
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(toolchain.KUBERNETES_PROGRAM)


def _etcd() -> None:
    client, peer = f"https://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PORT + 1}"
    flags = {
        "name": "cluster-etcd",
        "data-dir": HERE / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"cluster-etcd={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": KEYS / "ca.crt",
        "cert-file": KEYS / "etcd.crt",
        "key-file": KEYS / "etcd.key",
    }
    _run("cluster-etcd", "etcd", *(f"--{flag}={value}" for flag, value in flags.items()))


def _api_server() -> None:
    """Start the API server at the node's address, which pods can reach. A firewall rule redirects 127.0.0.1 to this address."""
    _kube(
        "kube-apiserver",
        bind_address=NODE,
        advertise_address=NODE,
        secure_port=API_PORT,
        allow_privileged="true",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        enable_aggregator_routing="true",
        client_ca_file=KEYS / "ca.crt",
        tls_cert_file=KEYS / "kube-apiserver.crt",
        tls_private_key_file=KEYS / "kube-apiserver.key",
        etcd_servers=f"https://127.0.0.1:{ETCD_PORT}",
        etcd_cafile=KEYS / "ca.crt",
        etcd_certfile=KEYS / "etcd.crt",
        etcd_keyfile=KEYS / "etcd.key",
        kubelet_certificate_authority=KEYS / "ca.crt",
        kubelet_client_certificate=KEYS / "admin.crt",
        kubelet_client_key=KEYS / "admin.key",
        # By default `kubectl logs` and `exec` look up the node's name in DNS, but DNS does not know that name.
        kubelet_preferred_address_types="InternalIP",
        proxy_client_cert_file=KEYS / "front-proxy.crt",
        proxy_client_key_file=KEYS / "front-proxy.key",
        requestheader_client_ca_file=KEYS / "ca.crt",
        requestheader_allowed_names="front-proxy",
        requestheader_username_headers="X-Remote-User",
        requestheader_group_headers="X-Remote-Group",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=KEYS / "service-account.crt",
        service_account_signing_key_file=KEYS / "service-account.key",
        service_cluster_ip_range=machine.SERVICES,
        # The range includes the gateway's ports.
        service_node_port_range=f"{HTTP_PORT}-32767",
        profiling="false",
    )
    wait_for("kube-apiserver", _ready)


def _containerd() -> None:
    _run("cluster-containerd", "containerd", "--config", HERE / "node" / "cluster-containerd.toml")
    wait_for("cluster-containerd", lambda: command_output(*_ctr("version")))


def _node() -> None:
    _kube(
        "kube-controller-manager",
        kubeconfig=_kubeconfig("kube-controller-manager"),
        bind_address="127.0.0.1",
        leader_elect="false",
        use_service_account_credentials="true",
        service_account_private_key_file=KEYS / "service-account.key",
        root_ca_file=KEYS / "ca.crt",
        cluster_signing_cert_file=KEYS / "ca.crt",
        cluster_signing_key_file=KEYS / "ca.key",
    )
    _kube(
        "kube-scheduler",
        kubeconfig=_kubeconfig("kube-scheduler"),
        bind_address="127.0.0.1",
        leader_elect="false",
    )
    _kube(
        "kubelet",
        kubeconfig=_kubeconfig("kubelet"),
        config=HERE / "node" / "kubelet.yaml",
        root_dir=HERE / "kubelet",
        hostname_override=NAME,
        node_ip=NODE,
        node_labels="topology.kubernetes.io/zone=a,topology.kubernetes.io/region=lab",
    )
    _kubeconfig("kube-proxy")
    _kube("kube-proxy", config=HERE / "node" / "kube-proxy.yaml")


def _apply() -> None:
    """Apply the manifests of the programs in the cluster. Each start applies the manifests, because they may have changed."""
    _kubeconfig("admin", KUBECONFIG)
    rendered = HERE / "apps"
    for file in (FILES / "apps").iterdir():
        render(file, rendered / file.name)
    resources = toolchain.download_module("upstream", "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    apply = ("apply", "--server-side", "--force-conflicts")
    kubectl(*apply, "-f", str(resources))
    kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(resources))
    kubectl(*apply, "-f", str(rendered))
    for namespace in NAMESPACES:
        kubectl("rollout", "status", "deployment", "--timeout=120s", "--namespace", namespace)


def kubectl(*words: str) -> None:
    """Run kubectl on the lab's cluster. The current context of the user's kubeconfig is ignored."""
    sh(KUBECTL, "--kubeconfig", KUBECONFIG, *words, log="cluster")


def _wait(what: str, ready: Callable[[], bool], seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what} does not answer; see `kubectl --kubeconfig {KUBECONFIG} get pods -A`")
        time.sleep(0.2)


# ---------------------------------------------------------------------- files


def render(file: Path, target: Path) -> None:
    """Fill in a template with the values of this machine and write it to `target`."""
    values: dict[str, object] = {
        "here": HERE,
        "keys": KEYS,
        "socket": SOCKET,
        "registry": engine.REGISTRY,
        "base": engine.BASE,
        "bridge": machine.BRIDGE,
        "pods": machine.PODS,
        "node": NODE,
        "dns": DNS,
        "http": HTTP_PORT,
        "https": HTTPS_PORT,
        "public_certificate": encoded("public.crt"),
        "public_key": encoded("public.key"),
        **{name.replace("-", "_"): image(name) for name in IMAGES},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(Template(file.read_text()).substitute(values))
    target.chmod(0o600)


def _certificates() -> None:
    KEYS.mkdir(parents=True, exist_ok=True)
    KEYS.chmod(0o700)
    # Use an empty configuration, because the machine's own openssl configuration would add its defaults.
    (KEYS / "openssl.cnf").write_text("[req]\ndistinguished_name = none\n[none]\n")
    certificate("ca", "/CN=lab", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    signed = ("-CA", str(KEYS / "ca.crt"), "-CAkey", str(KEYS / "ca.key"))
    for name, (subject, addresses) in PROGRAMS.items():
        names = (f"subjectAltName={addresses}",) if addresses else ()
        certificate(name, subject, "basicConstraints=critical,CA:FALSE", *names, options=signed)
    # Certificate of the gateway. It is self-signed, because browsers do not trust the cluster's own authority either.
    certificate("public", "/CN=localhost", "subjectAltName=DNS:localhost,DNS:*.localhost,DNS:*.board.localhost")
    certificate("service-account", "/CN=service-account")


def certificate(name: str, subject: str, *extensions: str, options: tuple[str, ...] = ()) -> None:
    """Create a key and its certificate if the certificate does not exist.

    The certificate is self-signed unless `options` name an authority.
    """
    if (KEYS / f"{name}.crt").exists():
        return
    fresh = KEYS / f"{name}.new"
    sh(
        "openssl",
        "req",
        "-x509",
        *("-config", KEYS / "openssl.cnf"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
        *("-days", "3650", "-subj", subject, *options),
        *(word for extension in extensions for word in ("-addext", extension)),
        *("-keyout", KEYS / f"{name}.key", "-out", fresh),
        log="cluster",
    )
    fresh.rename(KEYS / f"{name}.crt")


def encoded(name: str) -> str:
    return base64.b64encode((KEYS / name).read_bytes()).decode()


def _kubeconfig(user: str, target: Path | None = None) -> Path:
    """Write the kubeconfig of a program or of the administrator, and return its path."""
    target = target or HERE / f"{user}.kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {"server": API, "certificate-authority-data": encoded("ca.crt")}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user}}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(f"{user}.crt"),
                    "client-key-data": encoded(f"{user}.key"),
                },
            }
        ],
    }
    target.touch(mode=0o600)
    target.write_text(json.dumps(config, indent=2))
    return target


# ---------------------------------------------------------------------- images


def _ctr(*words: str) -> tuple[str, ...]:
    return ("ctr", "--address", str(SOCKET), "--namespace", "k8s.io", *words)


def image(name: str) -> str:
    """Return the image name of a program. The tag is a digest of the program's sources."""
    recipe = (toolchain.PODS / name).with_suffix(".built-from").read_bytes()
    return f"localhost/{name}:{hashlib.sha256(recipe).hexdigest()[:12]}"


def _images() -> None:
    """Import the images of the cluster's programs into containerd. Each image contains a single program."""
    for name in IMAGES:
        load(name)


def load(name: str, *also: str) -> str:
    """Import the image of a program into containerd unless containerd has it, and return the image's name.

    Args:
        name: name of the program, and its path in the image.
        also: additional paths at which the image contains the program.
    """
    if image(name) not in (command_output(*_ctr("images", "list", "--quiet")) or "").split():
        archive = HERE / f"{name}.tar"
        _archive(name, archive, also)
        sh(*_ctr("images", "import", str(archive)), log="cluster")
        archive.unlink()
    return image(name)


def _archive(name: str, target: Path, also: Sequence[str]) -> None:
    """Write an image that contains one program, in the format of `docker save`."""
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(toolchain.PODS / name, arcname=name)
        for other in also:
            link = tarfile.TarInfo(other)
            # A link needs the mode of its file, because unpacking the link sets the file's mode again.
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, name, 0o755
            tar.addfile(link)
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"Entrypoint": [f"/{name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image(name)], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        tar.add(layer, arcname="layer.tar")
        for file, content in (("config.json", config), ("manifest.json", manifest)):
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(file)
            entry.size = len(text)
            tar.addfile(entry, BytesIO(text))
    layer.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
