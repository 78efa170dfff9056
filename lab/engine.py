"""Installation of a Docker engine if no engine answers. Base images that can't be pulled are built on this machine."""

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
from .services import lab_process, packages, pid_file, start, stop_process, wait_for
from .steps import CACHE, Step, command_output, digest, sh

IMAGES = Path(__file__).parent / "images"
SOCKET = Path("/var/run/docker.sock")
PATIENCE = 5.0
"""Seconds to wait for an engine's answer."""
REGISTRY_PORT = 5005
REGISTRY = f"127.0.0.1:{REGISTRY_PORT}"
BASE = "debian:bookworm-slim"
NAMES = {
    "busybox": "busybox:1.37.0-musl",
    "haproxy": "haproxy:2.6-bookworm",
    "nginx": "nginx:1.22",
    "node": "node:22-bookworm-slim",
    "postgres": "postgres:15-bookworm",
    "python": "python:3.11-slim-bookworm",
    "redis": "redis:7-bookworm",
}
# Image folder → steps that the image needs in addition to the step of its base image.
BUILT_WITH = {
    "node": ("image python:3.11-slim-bookworm",),
    "cloudnative-pg-postgresql": ("image postgres:15-bookworm",),
    "plugin-barman-cloud-sidecar": ("image python:3.11-slim-bookworm", "barman plugin"),
    "rclone": ("rclone",),
}
# Image folder → program that the lab builds and copies into the build context of the image.
COPIED_PROGRAMS = {"plugin-barman-cloud-sidecar": "plugin-barman-cloud", "rclone": "rclone"}
# Images that CloudNativePG runs in a cluster (part `data`).
OPERATOR_IMAGES = {
    "cloudnative-pg-pgbouncer": "ghcr.io/cloudnative-pg/pgbouncer:1.24.1",
    "cloudnative-pg-postgresql": "ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
}
# Images for a database that archives every change to a bucket (part `archive`).
ARCHIVE_IMAGES = {
    "plugin-barman-cloud-sidecar": "ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.7.0",
    "rclone": "rclone/rclone:1.71.0",
}
# Images for an environment with `monitoring`.
MONITORING_IMAGES = {
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
UNSUPPORTED = (
    "no Docker engine answers, and the lab can start an engine only as root on Debian (this is {system}); "
    "install Docker Engine (docs.docker.com/engine/install) and start it, then run this again"
)
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SMALL = IMAGES / "debian" / "small"
# The package usr-is-merged is included, because its alternative usrmerge needs Perl. Perl has 47 MB, and the public image
# does not contain it.
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
    """Return the steps that install the engine and its images. The lab does not change an engine that it did not start."""
    if is_answering() and not lab_process("dockerd"):
        host = os.environ.get("DOCKER_HOST", str(SOCKET))
        return [
            Step(name="docker engine", takes="", present=lambda: f"answers at {host}, not the lab's", run=lambda: None)
        ]
    base = f"image {BASE}"
    return [
        packages("packages", PACKAGES, UNSUPPORTED),
        Step(name="docker engine", takes="5 s", needs=("packages",), present=_engine_present, run=_start_engine),
        registry("packages"),
        Step(
            name=base,
            takes="40 s",
            needs=("docker engine", "registry mirror"),
            present=lambda: _mirror_status(BASE) or _public_status(),
            run=_bootstrap,
        ),
        *images(NAMES),
    ]


def images(names: Mapping[str, str]) -> list[Step]:
    """Return the steps that build images, or no steps if the lab did not start the engine.

    Args:
        names: folder in `lab/images` → name of the image to build.
    """
    if is_answering() and not lab_process("dockerd"):
        return []
    return [
        Step(
            name=f"image {name}",
            takes="15 s",
            needs=(f"image {BASE}", *BUILT_WITH.get(folder, ())),
            present=lambda name=name: _mirror_status(name) or _public_status(),
            run=lambda folder=folder, name=name: _image(folder, name),
        )
        for folder, name in names.items()
    ]


def registry(packages: str) -> Step:
    """Return the step that starts the registry, which contains the lab's images under their names on Docker Hub."""
    return Step(name="registry mirror", takes="2 s", needs=(packages,), present=_registry_present, run=_start_registry)


def is_answering(path: Path = SOCKET) -> bool:
    """Return True if an engine answers at `path`.

    If `path` is the default and DOCKER_HOST is set, the function tests the engine at DOCKER_HOST instead.
    """
    if os.environ.get("DOCKER_HOST") and path == SOCKET:
        return command_output("docker", "version", "--format", "{{.Server.Version}}") is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(str(path))
            # An engine that is still starting accepts the connection, but may answer only after the timeout.
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200" in client.recv(100)
        except OSError:
            return False


def stop() -> None:
    """Stop the lab's engine and registry. The data of both stays in the cache."""
    for name in ("dockerd", "docker-registry"):
        stop_process(name)


# ---------------------------------------------------------------------- services


def delete_pid_file(name: str) -> None:
    """Delete the pid file of a process. The caller must have stopped the process."""
    pid_file(name).unlink(missing_ok=True)


def _engine_present() -> str | None:
    return f"the lab's, at {SOCKET}" if is_answering() else None


def start_engine(root: Path, at: Path, *more: str, name: str = "dockerd") -> subprocess.Popen[bytes]:
    """Start an engine that stores its data in `root`, listens at the socket `at`, and pulls through the lab's mirror."""
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
    wait_for(name, lambda: is_answering(at))
    return process


def _start_engine() -> None:
    start_engine(CACHE / "engine", SOCKET)


def _registry_present() -> str | None:
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2):
            return f"the lab's, at {REGISTRY}" if lab_process("docker-registry") else None
    except OSError:
        return None


def _start_registry() -> None:
    config = CACHE / "registry.json"
    data = CACHE / "registry"
    data.mkdir(parents=True, exist_ok=True)
    # The registry reads YAML, and JSON is valid YAML.
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


def _mirror_status(name: str) -> str | None:
    """Return a description if the mirror has the image, and the image was built from the current files. Otherwise return None."""
    repository, _, tag = _registry_path(name).partition(":")
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


def _registry_path(name: str) -> str:
    """Return an image's path in a registry. A name without a registry belongs to Docker Hub."""
    first, _, rest = name.partition("/")
    return rest if rest and "." in first else name if rest else f"library/{name}"


@cache
def _public_status() -> str | None:
    """Return "can be pulled" if the public registry has the base image. Otherwise return None.

    If the base image can be pulled, the lab does not need to build any image.
    """
    return "can be pulled" if command_output(_client(), "manifest", "inspect", BASE) is not None else None


def _stamp(name: str) -> Path:
    return CACHE / "images" / f"{name}.made-from"


def _recipe(name: str) -> str:
    """Return a text that changes with each file and setting from which an image is built."""
    folder = next(
        (
            folder
            for folder, image_name in (NAMES | OPERATOR_IMAGES | ARCHIVE_IMAGES | MONITORING_IMAGES).items()
            if image_name == name
        ),
        None,
    )
    if folder is None:
        return f"{BOOTSTRAP} {TRUST} {digest(BUNDLE, SMALL)}"
    program = (digest(_program(folder).with_suffix(".built-from")),) if folder in COPIED_PROGRAMS else ()
    return "".join((digest(*sorted((IMAGES / folder).iterdir())), *program, _recipe(BASE)))


def _program(folder: str) -> Path:
    return toolchain.PODS / COPIED_PROGRAMS[folder]


def _publish(name: str) -> None:
    target = f"{REGISTRY}/{_registry_path(name)}"
    docker = _client()
    log = f"image-{name.partition(':')[0].replace('/', '-')}"
    sh(docker, "tag", name, target, log=log)
    sh(docker, "push", target, log=log)
    # Delete the mirror's tag, except for images of ghcr.io. The engine uses no mirror for ghcr.io, so `make images` reads the
    # digest of these images from the tag.
    if not name.startswith("ghcr.io/"):
        sh(docker, "rmi", target, log=log)
    _stamp(name).parent.mkdir(parents=True, exist_ok=True)
    _stamp(name).write_text(_recipe(name))


def _client() -> str:
    return shutil.which("docker") or "docker"


def _bootstrap() -> None:
    """Build Debian's image with mmdebstrap. The image trusts this machine's certificate authorities, for downloads."""
    work = CACHE / "base"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tar = work / "debian.tar"
    # The path is not in BOOTSTRAP, because the recipe contains BOOTSTRAP and must be the same for clones in other folders.
    small = f"--customize-hook=copy-in {SMALL} /etc/apt/apt.conf.d"
    sh("mmdebstrap", *BOOTSTRAP, small, "bookworm", tar, log="image-debian")
    trust = " ".join(f"{variable}={BUNDLE}" for variable in TRUST)
    sh(_client(), "import", "--change", f"ENV {trust}", "--change", 'CMD ["bash"]', tar, BASE, log="image-debian")
    shutil.rmtree(work)
    _publish(BASE)


def _image(folder: str, name: str) -> None:
    # Use the classic builder, because Debian has no package of BuildKit's client.
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with TemporaryDirectory() as parent:
        context = shutil.copytree(IMAGES / folder, Path(parent) / folder)
        if folder in COPIED_PROGRAMS:
            shutil.copy(_program(folder), context)
        sh(_client(), "build", "-t", name, context, log=f"image-{folder}", env=env)
    _publish(name)
