"""Common parts of all objects in a namespace: names, labels and selectors. All functions are pure.

Names of Services, such as `api-blue` and `database`, are short and stable, because clients use them as host names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...config import App, Kubernetes
from ...model import names, services
from ...model.names import LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT
from ...model.services import Catalogue
from ...model.workload import Secret, Workload
from ..base import SlotTarget

Manifest = dict[str, Any]
OF_SERVICES = f"{LABEL_ROLE} in ({', '.join(names.SERVICE_ROLES)})"
"""Label selector of the processes of services, and of the objects that run them."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Names and settings that all manifests of an environment use."""

    app: str
    instance: str
    namespace: str
    pull_secrets: tuple[str, ...] = ()
    catalogue: Catalogue = field(default_factory=services.common_catalogue)
    """Services of the application."""

    @classmethod
    def of_environment(cls, app: App, cluster: Kubernetes, instance: str) -> "Scope":
        """Return the scope of an environment. `instance` is `APP-STACK`."""
        return cls(
            app=app.name,
            instance=instance,
            namespace=cluster.namespace_name(instance),
            pull_secrets=cluster.pull_secrets,
            catalogue=app.catalogue,
        )

    def labels(self, name: str, role: str, target: SlotTarget | None = None, tier: str | None = None) -> dict[str, str]:
        """Return an object's labels: the labels that Kubernetes recommends, and labels that the module `checkpoint` reads."""
        labels = {
            names.LABEL_NAME: name,
            names.LABEL_INSTANCE: self.instance,
            names.LABEL_PART_OF: self.app,
            names.LABEL_MANAGED_BY: "pulumi",
            names.LABEL_COMPONENT: tier or name,
            names.LABEL_APP: self.app,
            LABEL_ROLE: role,
        }
        if target:
            labels |= {names.LABEL_VERSION: target.release.version}
            labels |= {LABEL_SLOT: target.slot, LABEL_RELEASE: str(target.release)}
        return labels

    def object(
        self, api: str, kind: str, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> Manifest:
        metadata: Manifest = {"name": name, "namespace": self.namespace, "labels": dict(labels)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        return {"apiVersion": api, "kind": kind, "metadata": metadata}


def object_name(workload: Workload, target: SlotTarget | None) -> str:
    """Return the name of a workload's objects, which is also the workload's DNS name."""
    return f"{workload.tier}-{target.slot}" if target else workload.tier


def need_labels(scope: Scope, workload: Workload, target: SlotTarget | None) -> dict[str, str]:
    """Return a label for each service that a workload needs. Network policies let pods with the label connect to the service."""
    workloads = [
        f"{need}-{target.slot}" if target and not scope.catalogue.is_shared(need) else need for need in workload.needs
    ]
    return {names.LABEL_NEEDS.format(name=name): "yes" for name in workloads}


def selector(scope: Scope, workload: Workload, target: SlotTarget | None) -> dict[str, str]:
    """Return the labels that select the pods of a workload, but not of its tasks. In a slot the labels also select the release."""
    labels = {names.LABEL_NAME: workload.tier, names.LABEL_INSTANCE: scope.instance}
    return labels | ({LABEL_SLOT: str(target.slot), LABEL_RELEASE: str(target.release)} if target else {})


def scripts_name(workload: Workload) -> str:
    return names.SCRIPTS.format(data=workload.tier)


def secret_name(owner: str, secrets: Sequence[Secret]) -> str:
    """Return the name of the Kubernetes Secret with `secrets`. A changed value changes the name: running pods keep the old Secret."""
    return owner + names.version_suffix([secret.version for secret in secrets], names.SUBDOMAIN - len(owner))


def external_secret_name(owner: str, secret: Secret) -> str:
    """Return the name of the Secret that External Secrets creates for one secret of a workload."""
    # The name of an environment variable is no DNS label.
    name = secret.name if names.is_dns_label(secret.name) else names.as_dns_label(secret.name, secret.name)
    return secret_name(f"{owner}-{name}", [secret])
