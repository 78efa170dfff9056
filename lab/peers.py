"""Installation of Argo Rollouts on the lab's cluster. The benchmarks compare Tiers with it."""

import urllib.request

from . import cluster, toolchain
from .services import lab_process, start, stop_process, wait_for
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
            present=lambda: f"at work on context {cluster.NAME}" if lab_process(CONTROLLER) and _healthy() else None,
            run=_start,
        ),
    ]


def stop() -> None:
    """Stop the controller. Its resource definitions stay in the cluster, and have no effect without the controller."""
    stop_process(CONTROLLER)


def _start() -> None:
    if not cluster.KUBECONFIG.exists():
        raise LabError(
            f"the context {cluster.NAME} of the kubeconfig is not the lab's cluster, which this step needs; rename that context"
        )
    kinds = toolchain.download_module("upstream", toolchain.ROLLOUTS) / "manifests" / "crds"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--kustomize", str(kinds))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    # The controller runs as a process of this machine, like the cluster's other controllers. It has the options of
    # upstream's manifests, except for the ports.
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
