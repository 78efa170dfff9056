"""Release tools that the benchmarks compare with: the controller of Argo Rollouts, on the lab's cluster."""

import urllib.request

from . import cluster, toolchain
from .services import end, ours, start, wait_for
from .steps import LabError, Step

CONTROLLER = "rollouts-controller"
HEALTH_PORT, METRICS_PORT = 12390, 12391


def steps() -> list[Step]:
    """Return the steps that build and start the controller and install its resource definitions."""
    programs = toolchain.peers()
    return [
        *programs,
        Step(
            name="argo rollouts",
            takes="10 s",
            needs=("cluster", *(program.name for program in programs)),
            present=lambda: f"at work on context {cluster.NAME}" if ours(CONTROLLER) and _healthy() else None,
            run=_start,
        ),
    ]


def stop() -> None:
    """End the controller. Its resource definitions stay, and have no effect without it."""
    end(CONTROLLER)


def _start() -> None:
    if not cluster.KUBECONFIG.exists():
        raise LabError(f"it works on the lab's own cluster only, and there is another of the name {cluster.NAME}")
    kinds = toolchain.downloaded("upstream", toolchain.ROLLOUTS) / "manifests" / "crds"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--kustomize", str(kinds))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    # A process of the machine, like the cluster's other controllers. Its options are upstream's except for the ports.
    start(
        CONTROLLER,
        toolchain.BIN / CONTROLLER,
        f"--kubeconfig={cluster.KUBECONFIG}",
        "--leader-elect=false",
        f"--healthzPort={HEALTH_PORT}",
        f"--metricsport={METRICS_PORT}",
    )
    wait_for(CONTROLLER, _healthy)


def _healthy() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/healthz", timeout=2):
            return True
    except OSError:
        return False
