"""Installation of CloudNativePG in the lab's cluster: upstream's manifests, with images that the lab builds."""

from . import cluster, engine, toolchain
from .steps import Step, command_output

NAMESPACE, OPERATOR = "cnpg-system", "cnpg-controller-manager"
RELEASE = "1.27.0"


def steps() -> list[Step]:
    """Return the steps that install the operator and its images.

    If the lab did not start the cluster, return no steps, because the cluster's administrator installs operators.
    """
    if cluster.foreign_cluster():
        return []
    programs = [*toolchain.operators(), *engine.images(engine.OPERATOR_IMAGES)]
    return [
        *programs,
        Step(
            name="postgresql operator",
            takes="40 s",
            needs=("cluster", *(step.name for step in programs)),
            present=_present,
            run=_apply,
        ),
    ]


def running(deployment: str) -> str | None:
    """Return the image of a Deployment in the operator's namespace if exactly one replica is available, or else None."""
    columns = "jsonpath={.spec.template.spec.containers[0].image} {.status.availableReplicas}"
    options = ("--kubeconfig", str(cluster.KUBECONFIG), "--namespace", NAMESPACE)
    printed = command_output(str(cluster.KUBECTL), *options, "get", "deployment", deployment, "--output", columns) or ""
    image, _, available = printed.partition(" ")
    return image if available == "1" else None


def apply(deployment: str, text: str) -> None:
    """Apply manifests to the cluster, and wait until their Deployment is available."""
    rendered = cluster.HERE / "apps-data" / f"{deployment}.yaml"
    rendered.parent.mkdir(exist_ok=True)
    # Only this user may read the file, because it may contain keys.
    rendered.touch(mode=0o600)
    rendered.write_text(text)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(rendered))
    cluster.kubectl("rollout", "status", "deployment", deployment, "--timeout=120s", "--namespace", NAMESPACE)


def _present() -> str | None:
    """Return the operator's name and version if the current build of the operator is running, or None."""
    built = (toolchain.PODS / "cloudnative-pg.built-from").exists()
    return f"CloudNativePG {RELEASE}" if built and running(OPERATOR) == cluster.image("cloudnative-pg") else None


def _apply() -> None:
    cluster.render(cluster.FILES / "node" / "ghcr.io.toml", cluster.HERE / "registries" / "ghcr.io" / "hosts.toml")
    # The operator copies itself into the pods that it creates, from the path `operator/manager_ARCHITECTURE`.
    image = cluster.load("cloudnative-pg", "manager", f"operator/manager_{cluster.ARCHITECTURE}")
    upstream = toolchain.download_module("upstream", toolchain.CLOUDNATIVE_PG) / "releases" / f"cnpg-{RELEASE}.yaml"
    release = upstream.read_text().replace(f"ghcr.io/cloudnative-pg/cloudnative-pg:{RELEASE}", image)
    apply(OPERATOR, release.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent"))
