"""Docker engine where none answers, and base images where they can't be pulled."""

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from . import toolchain
from .services import end, ours, packages, pid_file, start, wait_for
from .steps import CACHE, Step, answer, digest, sh

IMAGES = Path(__file__).parent / "images"
SOCKET = Path("/var/run/docker.sock")
REGISTRY_PORT = 5005
REGISTRY = f"127.0.0.1:{REGISTRY_PORT}"
BASE = "debian:bookworm-slim"
NAMES = {
    "haproxy": "haproxy:2.6-bookworm",
    "nginx": "nginx:1.22",
    "node": "node:22-bookworm-slim",
    "postgres": "postgres:15-bookworm",
    "python": "python:3.11-slim-bookworm",
    "redis": "redis:7-bookworm",
}
# Folder → steps that its image needs besides the base image.
BUILT_WITH = {
    "node": ("image python:3.11-slim-bookworm",),
    "cloudnative-pg-postgresql": ("image postgres:15-bookworm",),
    "plugin-barman-cloud-sidecar": ("image python:3.11-slim-bookworm", "barman plugin"),
    "rclone": ("rclone",),
}
# Folder → program built by the lab that is copied into its build context.
HOLDS = {"plugin-barman-cloud-sidecar": "plugin-barman-cloud", "rclone": "rclone"}
# Images for the operator of a cluster (`data`).
OPERATED = {
    "cloudnative-pg-pgbouncer": "ghcr.io/cloudnative-pg/pgbouncer:1.24.1",
    "cloudnative-pg-postgresql": "ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
}
# Images for a database whose every change is archived to a bucket (`archive`).
ARCHIVED = {
    "plugin-barman-cloud-sidecar": "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.7.0",
    "rclone": "rclone/rclone:1.71.0",
}
# Images for an environment with `monitoring`.
WATCHERS = {
    "postgres-exporter": "prometheuscommunity/postgres-exporter:v0.11.1",
    "prometheus": "prom/prometheus:v2.42.0",
    "redis-exporter": "oliver006/redis_exporter:v1.45.0-alpine",
}
PACKAGES = {
    "dockerd": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "docker-registry": "docker-registry",
    "iptables": "iptables",
    "ip": "iproute2",
}
ELSE = (
    "no Docker engine answers and the lab can start one only as root on Debian (this is {system}); "
    "install Docker Engine (docs.docker.com/engine/install) and start it, then run this again"
)
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SMALL = IMAGES / "debian" / "small"
# The alternative for a merged /usr, the package usrmerge, needs all of Perl: 47 MB that the public image does not
# have.
BOOTSTRAP = (
    "--variant=minbase",
    "--include=ca-certificates,usr-is-merged",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    '--aptopt=Acquire::Retries "5"',
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")),
    f"--customize-hook=copy-in {BUNDLE} /etc/ssl/certs",
    '--customize-hook=rm -f "$1"/var/cache/apt/*.bin',
)
TRUST = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def steps() -> list[Step]:
    """Return the steps of the engine and its images. An engine that the lab did not start, and its images, stay unchanged."""
    if answers() and not ours("dockerd"):
        host = os.environ.get("DOCKER_HOST", str(SOCKET))
        return [
            Step(name="docker engine", takes="", present=lambda: f"answers at {host}, not the lab's", run=lambda: None)
        ]
    base = f"image {BASE}"
    return [
        packages("packages", PACKAGES, ELSE),
        Step(name="docker engine", takes="5 s", needs=("packages",), present=_engine_present, run=_start_engine),
        registry("packages"),
        Step(
            name=base,
            takes="40 s",
            needs=("docker engine", "registry mirror"),
            present=lambda: _mirrored(BASE) or _public(),
            run=_bootstrap,
        ),
        *images(NAMES),
    ]


def images(names: Mapping[str, str]) -> list[Step]:
    """Return the steps of images; `names` is build folder → image. There are none for an engine that the lab did not start."""
    if answers() and not ours("dockerd"):
        return []
    return [
        Step(
            name=f"image {name}",
            takes="15 s",
            needs=(f"image {BASE}", *BUILT_WITH.get(folder, ())),
            present=lambda name=name: _mirrored(name) or _public(),
            run=lambda folder=folder, name=name: _image(folder, name),
        )
        for folder, name in names.items()
    ]


def registry(packages: str) -> Step:
    """Return the step of the registry: a mirror of the public one that holds the lab's images."""
    return Step(name="registry mirror", takes="2 s", needs=(packages,), present=_registry_present, run=_start_registry)


def answers(path: Path = SOCKET) -> bool:
    """Tell whether an engine answers at the address that the docker client would use."""
    if os.environ.get("DOCKER_HOST") and path == SOCKET:
        return answer("docker", "version", "--format", "{{.Server.Version}}") is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except OSError:
            return False
        client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b"200" in client.recv(100)


def stop() -> None:
    """Stop the lab's engine and registry; their data stays in the cache."""
    for name in ("dockerd", "docker-registry"):
        end(name)


# ---------------------------------------------------------------------- services


def forget(name: str) -> None:
    """Delete the pid file of a process that its user has ended."""
    pid_file(name).unlink(missing_ok=True)


def _engine_present() -> str | None:
    return f"the lab's, at {SOCKET}" if answers() else None


def start_engine(root: Path, at: Path, *more: str, name: str = "dockerd") -> subprocess.Popen[bytes]:
    """Start an engine with its data in `root`, listening at `at` and pulling through the lab's mirror."""
    root.mkdir(parents=True, exist_ok=True)
    process = start(
        name,
        "dockerd",
        "--host",
        f"unix://{at}",
        "--data-root",
        root / "data",
        "--exec-root",
        root / "exec",
        "--pidfile",
        root / "pid",
        "--registry-mirror",
        f"http://{REGISTRY}",
        *more,
    )
    wait_for(name, lambda: answers(at))
    return process


def _start_engine() -> None:
    start_engine(CACHE / "engine", SOCKET)


def _registry_present() -> str | None:
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2):
            return f"the lab's, at {REGISTRY}" if ours("docker-registry") else None
    except OSError:
        return None


def _start_registry() -> None:
    config = CACHE / "registry.json"
    data = CACHE / "registry"
    data.mkdir(parents=True, exist_ok=True)
    # The registry reads YAML, of which JSON is a subset.
    settings = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    config.write_text(json.dumps(settings))
    start("docker-registry", "docker-registry", "serve", config)
    wait_for("docker-registry", _registry_present)


# ---------------------------------------------------------------------- images


def _mirrored(name: str) -> str | None:
    """Return a description if the mirror has the image of the current files."""
    repository, _, tag = _place(name).partition(":")
    request = urllib.request.Request(
        f"http://{REGISTRY}/v2/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        method="HEAD",
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            stamp = _stamp(name)
            return "in the mirror" if stamp.exists() and stamp.read_text() == _recipe(name) else None
    except (urllib.error.URLError, OSError):
        return None


def _place(name: str) -> str:
    """Return an image's path in a registry: without a registry in its name it is Docker Hub's."""
    first, _, rest = name.partition("/")
    return rest if rest and "." in first else name if rest else f"library/{name}"


@cache
def _public() -> str | None:
    """Return a description if the public registry can be reached, from which images are then pulled when needed."""
    return "can be pulled" if answer(_client(), "manifest", "inspect", BASE) is not None else None


def _stamp(name: str) -> Path:
    return CACHE / "images" / f"{name}.made-from"


def _recipe(name: str) -> str:
    """Return the digest of everything an image is built from."""
    folder = next(
        (folder for folder, image_name in (NAMES | OPERATED | ARCHIVED | WATCHERS).items() if image_name == name), None
    )
    if folder is None:
        return f"{BOOTSTRAP} {TRUST} {digest(BUNDLE, SMALL)}"
    program = (digest(_program(folder).with_suffix(".built-from")),) if folder in HOLDS else ()
    return "".join((digest(*sorted((IMAGES / folder).iterdir())), *program, _recipe(BASE)))


def _program(folder: str) -> Path:
    return toolchain.PODS / HOLDS[folder]


def _publish(name: str) -> None:
    target = f"{REGISTRY}/{_place(name)}"
    docker = _client()
    log = f"image-{name.partition(':')[0].replace('/', '-')}"
    sh(docker, "tag", name, target, log=log)
    sh(docker, "push", target, log=log)
    if not name.startswith("ghcr.io/"):  # The engine uses no mirror for ghcr.io, so the tag stays to know the digest.
        sh(docker, "rmi", target, log=log)
    _stamp(name).parent.mkdir(parents=True, exist_ok=True)
    _stamp(name).write_text(_recipe(name))


def _client() -> str:
    return shutil.which("docker") or "docker"


def _bootstrap() -> None:
    """Build Debian's image by mmdebstrap, with the machine's certificates, so that builds on it work as anywhere else."""
    work = CACHE / "base"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tar = work / "debian.tar"
    # The path of this clone is not part of the recipe: other clones build the same image.
    small = f"--customize-hook=copy-in {SMALL} /etc/apt/apt.conf.d"
    sh("mmdebstrap", *BOOTSTRAP, small, "bookworm", tar, log="image-debian")
    trust = " ".join(f"{variable}={BUNDLE}" for variable in TRUST)
    sh(_client(), "import", "--change", f"ENV {trust}", "--change", 'CMD ["bash"]', tar, BASE, log="image-debian")
    shutil.rmtree(work)
    _publish(BASE)


def _image(folder: str, name: str) -> None:
    # The classic builder, because Debian lacks the separate package of BuildKit's client.
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with TemporaryDirectory() as parent:
        context = shutil.copytree(IMAGES / folder, Path(parent) / folder)
        if folder in HOLDS:
            shutil.copy(_program(folder), context)
        sh(_client(), "build", "-t", name, context, log=f"image-{folder}", env=env)
    _publish(name)
