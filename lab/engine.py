"""A Docker engine where none answers, and the base images where they can't be pulled."""

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
# What an image is built with, beside the base.
BUILT_WITH = {
    "node": ("image python:3.11-slim-bookworm",),
    "cloudnative-pg-postgresql": ("image postgres:15-bookworm",),
    "plugin-barman-cloud-sidecar": ("image python:3.11-slim-bookworm", "barman plugin"),
    "rclone": ("rclone",),
}
# And a program of those that are built here, which its Dockerfile finds beside itself.
HOLDS = {"plugin-barman-cloud-sidecar": "plugin-barman-cloud", "rclone": "rclone"}
# What only the operator of a cluster asks for (`data`).
OPERATED = {
    "cloudnative-pg-pgbouncer": "ghcr.io/cloudnative-pg/pgbouncer:1.24.1",
    "cloudnative-pg-postgresql": "ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
}
# And what only a database asks for whose every change is kept in a bucket (`archive`).
ARCHIVED = {
    "plugin-barman-cloud-sidecar": "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.7.0",
    "rclone": "rclone/rclone:1.71.0",
}
# What only an environment with `monitoring` asks for.
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
# Debian's other way to a merged /usr, the package usrmerge, brings all of Perl: 47 MB that the public image does not have.
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
    """Where an engine answers that the lab did not start, it and its images are left as they are."""
    if answers() and not ours("dockerd"):
        where = os.environ.get("DOCKER_HOST", str(SOCKET))
        return [
            Step(name="docker engine", takes="", present=lambda: f"answers at {where}, not the lab's", run=lambda: None)
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
    """Images by the folder here that they are built from. Beside an engine that the lab did not start there are none."""
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
    """Where images are pulled from and pushed to: a mirror of the public one that holds the lab's."""
    return Step(name="registry mirror", takes="2 s", needs=(packages,), present=_registry_present, run=_start_registry)


def answers(path: Path = SOCKET) -> bool:
    """Whether an engine answers where the docker client would look."""
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
    """End the engine and the registry that the lab started; what they hold stays in the cache."""
    for name in ("dockerd", "docker-registry"):
        end(name)


# ---------------------------------------------------------------------- services


def forget(name: str) -> None:
    """A process the lab started has been ended by who asked for it."""
    pid_file(name).unlink(missing_ok=True)


def _engine_present() -> str | None:
    return f"the lab's, at {SOCKET}" if answers() else None


def start_engine(root: Path, at: Path, *more: str, name: str = "dockerd") -> subprocess.Popen[bytes]:
    """An engine of our own with its data in `root`, listening at `at`, pulling through the lab's mirror."""
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
    # JSON is YAML: no template needed.
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
    """Whether the mirror holds the image as its files here describe it."""
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
    """Where a registry has the image: what is not named after one is Docker's own."""
    first, _, rest = name.partition("/")
    return rest if rest and "." in first else name if rest else f"library/{name}"


@cache
def _public() -> str | None:
    """Whether the public registry can be reached: then images are pulled when they are needed."""
    return "can be pulled" if answer(_client(), "manifest", "inspect", BASE) is not None else None


def _stamp(name: str) -> Path:
    return CACHE / "images" / f"{name}.made-from"


def _recipe(name: str) -> str:
    """The digest of what the image is made from."""
    folder = next((folder for folder, known in (NAMES | OPERATED | ARCHIVED | WATCHERS).items() if known == name), None)
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
    if not name.startswith("ghcr.io/"):  # of which the engine asks no mirror: by this name it knows the digest
        sh(docker, "rmi", target, log=log)
    _stamp(name).parent.mkdir(parents=True, exist_ok=True)
    _stamp(name).write_text(_recipe(name))


def _client() -> str:
    return shutil.which("docker") or "docker"


def _bootstrap() -> None:
    """Debian by mmdebstrap, with the machine's certificates, so that builds on it are as they would be anywhere."""
    work = CACHE / "base"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tar = work / "debian.tar"
    # Where this clone lies is no part of what the image is made from: another clone's is the same image.
    small = f"--customize-hook=copy-in {SMALL} /etc/apt/apt.conf.d"
    sh("mmdebstrap", *BOOTSTRAP, small, "bookworm", tar, log="image-debian")
    trust = " ".join(f"{variable}={BUNDLE}" for variable in TRUST)
    sh(_client(), "import", "--change", f"ENV {trust}", "--change", 'CMD ["bash"]', tar, BASE, log="image-debian")
    shutil.rmtree(work)
    _publish(BASE)


def _image(folder: str, name: str) -> None:
    # The classic builder: BuildKit's client part is a separate package that Debian does not have.
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with TemporaryDirectory() as made:
        context = shutil.copytree(IMAGES / folder, Path(made) / folder)
        if folder in HOLDS:
            shutil.copy(_program(folder), context)
        sh(_client(), "build", "-t", name, context, log=f"image-{folder}", env=env)
    _publish(name)
