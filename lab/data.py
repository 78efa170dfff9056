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


def _present() -> str | None:
    """Whether the operator runs, and as it is built now."""
    program = toolchain.PODS / "cloudnative-pg.built-from"
    wanted = f"{cluster.image('cloudnative-pg')} 1" if program.exists() else None
    asked = "jsonpath={.spec.template.spec.containers[0].image} {.status.availableReplicas}"
    where = ("--kubeconfig", str(cluster.KUBECONFIG), "--namespace", NAMESPACE)
    found = answer(str(cluster.KUBECTL), *where, "get", "deployment", OPERATOR, "--output", asked)
    return f"CloudNativePG {RELEASE}" if found and found == wanted else None


def _apply() -> None:
    cluster.render(cluster.FILES / "node" / "ghcr.io.toml", cluster.HERE / "registries" / "ghcr.io" / "hosts.toml")
    # The operator copies itself into the pods it makes, from where a release has a program for each processor.
    image = cluster.load("cloudnative-pg", "manager", f"operator/manager_{cluster.ARCHITECTURE}")
    upstream = toolchain.downloaded("upstream", toolchain.CLOUDNATIVE_PG) / "releases" / f"cnpg-{RELEASE}.yaml"
    release = upstream.read_text().replace(f"ghcr.io/cloudnative-pg/cloudnative-pg:{RELEASE}", image)
    rendered = cluster.HERE / "apps-data" / "cloudnative-pg.yaml"
    rendered.parent.mkdir(exist_ok=True)
    rendered.write_text(release.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent"))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(rendered))
    cluster.kubectl("rollout", "status", "deployment", OPERATOR, "--timeout=120s", "--namespace", NAMESPACE)
