"""Installation of CloudNativePG's Barman plugin, which archives every change of a database to an S3 store.

The manifests are from upstream's release, but the lab builds the image.
"""

import json
import re

from . import cluster, data, engine, toolchain
from .steps import Step

NAME, PROGRAM = "barman-cloud", "plugin-barman-cloud"
SIDECAR = engine.ARCHIVE_IMAGES["plugin-barman-cloud-sidecar"]
# Names of the key pairs of the plugin (server) and of the operator (client). Upstream creates the pairs with cert-manager.
# The lab has no cert-manager, so it creates the pairs itself.
ENDS = {"server": NAME, "client": f"{NAME}-client"}


def steps() -> list[Step]:
    """Return the steps that install the plugin and its image.

    If the lab did not start the cluster, return no steps, because the cluster's administrator installs the plugin.
    """
    if cluster.foreign_cluster():
        return []
    programs = [toolchain.barman(), *engine.images(engine.ARCHIVE_IMAGES)]
    return [
        *programs,
        Step(
            name="backup plugin",
            takes="20 s",
            needs=("postgresql operator", *(step.name for step in programs)),
            present=_present,
            run=_apply,
        ),
    ]


def _present() -> str | None:
    """Return the name of the plugin's image if the current build of the plugin is running, or None."""
    built = (toolchain.PODS / PROGRAM).with_suffix(".built-from").exists()
    return SIDECAR if built and data.running(NAME) == cluster.image(PROGRAM) else None


def _apply() -> None:
    release = (toolchain.download_module("upstream", toolchain.BARMAN) / "manifest.yaml").read_text()
    manifests = [manifest for manifest in release.split("\n---\n") if "apiVersion: cert-manager.io/" not in manifest]
    text = "\n---\n".join([*manifests, *(json.dumps(_pair(end)) for end in ENDS)])
    text = re.sub(r"image: ghcr\.io/\S+", f"image: {cluster.load(PROGRAM)}", text)
    text = re.sub(r"\ndata:\n  SIDECAR_IMAGE: \|\n(    \S+\n)+", f"\nstringData:\n  SIDECAR_IMAGE: {SIDECAR}\n", text)
    data.apply(NAME, text.replace("--log-level=debug", "--log-level=info"))


def _pair(end: str) -> dict[str, object]:
    """Return the manifest of the Secret with the key pair of the plugin (`server`) or of the operator (`client`)."""
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
