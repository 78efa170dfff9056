"""What keeps data in the lab's cluster: CloudNativePG, as its release has it, with images that are built here."""

from . import cluster, engine, toolchain
from .steps import Step, answer

NAMESPACE, OPERATOR = "cnpg-system", "cnpg-controller-manager"
RELEASE = "1.27.0"


def steps() -> list[Step]:
    """The operator and what it runs. In a cluster that is not the lab's, operators are its administrator's."""
    if cluster.another():
        return []
    made = [*toolchain.operators(), *engine.images(engine.OPERATED)]
    return [
        *made,
        Step(
            name="postgresql operator",
            takes="40 s",
            needs=("cluster", *(step.name for step in made)),
            present=_present,
            run=_apply,
        ),
    ]


def running(deployment: str) -> str | None:
    """The image of a Deployment beside the operator, if one of it is available."""
    asked = "jsonpath={.spec.template.spec.containers[0].image} {.status.availableReplicas}"
    where = ("--kubeconfig", str(cluster.KUBECONFIG), "--namespace", NAMESPACE)
    found = answer(str(cluster.KUBECTL), *where, "get", "deployment", deployment, "--output", asked) or ""
    image, _, available = found.partition(" ")
    return image if available == "1" else None


def apply(deployment: str, text: str) -> None:
    """Have what a release describes in the cluster, and wait for the Deployment in it."""
    rendered = cluster.HERE / "apps-data" / f"{deployment}.yaml"
    rendered.parent.mkdir(exist_ok=True)
    # It may hold keys.
    rendered.touch(mode=0o600)
    rendered.write_text(text)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(rendered))
    cluster.kubectl("rollout", "status", "deployment", deployment, "--timeout=120s", "--namespace", NAMESPACE)


def _present() -> str | None:
    """Whether the operator runs, and as it is built now."""
    built = (toolchain.PODS / "cloudnative-pg.built-from").exists()
    return f"CloudNativePG {RELEASE}" if built and running(OPERATOR) == cluster.image("cloudnative-pg") else None


def _apply() -> None:
    cluster.render(cluster.FILES / "node" / "ghcr.io.toml", cluster.HERE / "registries" / "ghcr.io" / "hosts.toml")
    # The operator copies itself into the pods it makes, from where a release has a program for each processor.
    image = cluster.load("cloudnative-pg", "manager", f"operator/manager_{cluster.ARCHITECTURE}")
    upstream = toolchain.downloaded("upstream", toolchain.CLOUDNATIVE_PG) / "releases" / f"cnpg-{RELEASE}.yaml"
    release = upstream.read_text().replace(f"ghcr.io/cloudnative-pg/cloudnative-pg:{RELEASE}", image)
    apply(OPERATOR, release.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent"))
