"""CloudNativePG's plugin for Barman, which keeps every change of a database in an S3 store: as its release has it, built here."""

import json
import re

from . import cluster, data, engine, toolchain
from .steps import Step

NAME, PROGRAM = "barman-cloud", "plugin-barman-cloud"
SIDECAR = engine.ARCHIVED["plugin-barman-cloud-sidecar"]
# What upstream has cert-manager make: a key pair for each end of the way between the operator and its plugin.
ENDS = {"server": NAME, "client": f"{NAME}-client"}


def steps() -> list[Step]:
    """The plugin and what it runs. In a cluster that is not the lab's, it is its administrator's as the operator is."""
    if cluster.another():
        return []
    made = [toolchain.barman(), *engine.images(engine.ARCHIVED)]
    return [
        *made,
        Step(
            name="backup plugin",
            takes="20 s",
            needs=("postgresql operator", *(step.name for step in made)),
            present=_present,
            run=_apply,
        ),
    ]


def _present() -> str | None:
    """Whether the plugin runs, and as it is built now."""
    built = (toolchain.PODS / PROGRAM).with_suffix(".built-from").exists()
    return SIDECAR if built and data.running(NAME) == cluster.image(PROGRAM) else None


def _apply() -> None:
    release = (toolchain.downloaded("upstream", toolchain.BARMAN) / "manifest.yaml").read_text()
    wanted = [each for each in release.split("\n---\n") if "apiVersion: cert-manager.io/" not in each]
    text = "\n---\n".join([*wanted, *(json.dumps(_pair(end)) for end in ENDS)])
    text = re.sub(r"image: ghcr\.io/\S+", f"image: {cluster.load(PROGRAM)}", text)
    text = re.sub(r"\ndata:\n  SIDECAR_IMAGE: \|\n(    \S+\n)+", f"\nstringData:\n  SIDECAR_IMAGE: {SIDECAR}\n", text)
    data.apply(NAME, text.replace("--log-level=debug", "--log-level=info"))


def _pair(end: str) -> dict[str, object]:
    """The Secret of one end, with a certificate that is its own authority."""
    name = ENDS[end]
    cluster.certificate(name, f"/CN={name}", f"subjectAltName=DNS:{name}")
    pair = {"tls.crt": cluster.encoded(f"{name}.crt"), "tls.key": cluster.encoded(f"{name}.key")}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{NAME}-{end}-tls", "namespace": data.NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": pair,
    }
