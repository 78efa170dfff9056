"""Installation of promtool, and of prometheus-operator in the lab's cluster.

The operator only writes the configuration of a Prometheus. No Prometheus runs in the cluster, because Debian's build of
Prometheus lacks service discovery for Kubernetes (error: `field kubernetes_sd_configs not found`).
"""

import os
import urllib.request

from . import cluster, toolchain
from .services import lab_process, packages, start, stop_process, wait_for
from .steps import LabError, Step

PACKAGES = {"promtool": "prometheus"}
UNSUPPORTED = "the lab can install promtool only as root on Debian (this is {system}); install Prometheus (prometheus.io/download)"
OPERATOR, PORT = "prometheus-operator", 12392


def tools() -> Step:
    """Return the step that installs `promtool`, which tests alert rules. The package's Prometheus server is not started."""
    return packages("promtool", PACKAGES, UNSUPPORTED)


def operator_steps() -> list[Step]:
    """Return the steps that install the operator, its resource definitions, and a Prometheus object.

    The Prometheus object selects all monitors and has no pods.
    """
    programs = toolchain.prometheus_operator()
    return [
        *programs,
        Step(
            name="prometheus operator",
            takes="20 s",
            needs=("cluster", *(program.name for program in programs)),
            present=lambda: f"at work on context {cluster.NAME}" if lab_process(OPERATOR) and _healthy() else None,
            run=_start,
        ),
    ]


def stop() -> None:
    """Stop the operator. Its objects stay in the cluster."""
    stop_process(OPERATOR)


def _start() -> None:
    if not cluster.KUBECONFIG.exists():
        raise LabError(
            f"the context {cluster.NAME} of the kubeconfig is not the lab's cluster, which this step needs; rename that context"
        )
    kinds = toolchain.download_module("upstream", toolchain.OPERATOR) / "example" / "prometheus-operator-crd"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(kinds))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(kinds))
    # The operator runs as a process of this machine, like the cluster's other controllers.
    start(
        OPERATOR,
        toolchain.BIN / OPERATOR,
        f"--web.listen-address=127.0.0.1:{PORT}",
        env={**os.environ, "KUBECONFIG": str(cluster.KUBECONFIG)},
    )
    wait_for(OPERATOR, _healthy)
    manifests = cluster.FILES / "monitoring" / "prometheus.yaml"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifests))


def _healthy() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=2):
            return True
    except OSError:
        return False
