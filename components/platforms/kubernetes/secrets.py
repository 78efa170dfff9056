"""Secrets of workloads as Kubernetes Secrets, and the pods that mount these Secrets."""

from collections.abc import Mapping, Sequence

from pulumi import Input, Resource

from ...model.workload import Secret, Task, Workload
from ...release.checkpoint import Entry
from ..base import DesiredState, SlotTarget
from ..process import secret_variables, service_urls, variables
from . import manifests, objects, pod_spec
from .objects import Manifest
from .registrar import Registrar


class SecretOperations(Registrar):
    """Operations that provide secrets and scripts before a pod starts."""

    def provision(
        self, parent: Resource, workloads: Sequence[Workload], target: SlotTarget | None
    ) -> Mapping[str, Resource]:
        provisioned: dict[str, Resource] = {}
        for workload in workloads:
            owner, references = objects.object_name(workload, target), self.cluster.secrets
            account = manifests.account(self.scope, workload, target)
            provisioned[f"{owner}/account"] = self.object(parent, account)
            if self._stored_secrets(workload):
                manifest = self._secret(workload, target)
                provisioned[f"{owner}/secrets"] = self.object(
                    parent, manifest, additional_secret_outputs=["data", "stringData"]
                )
            for secret in workload.all_secrets:
                reference = references.get(secret.source)
                if reference and reference.store:
                    manifest = manifests.external_secret(self.scope, owner, workload.tier, secret, reference, target)
                    provisioned[f"{owner}/{secret.name}"] = self.object(parent, manifest)
        return provisioned

    def _secret(self, workload: Workload, target: SlotTarget | None) -> Manifest:
        """Return the Kubernetes Secret of a workload, with the secrets whose values are in the stack file."""
        stored, urls = self._stored_secrets(workload), service_urls(workload, target, self.app.ports)
        values: dict[str, Input[str]] = {
            secret.name: self.context.sealed.apply(lambda values, secret=secret: secret.value(values, urls))
            for secret in stored
        }
        return manifests.secret(
            self.scope, objects.object_name(workload, target), workload.tier, stored, values, target
        )

    def with_current_secrets(self, entry: Entry, workload: Workload, target: SlotTarget) -> DesiredState | None:
        if (
            not self._stored_secrets(workload)
            or (manifest := self._secret(workload, target))["metadata"]["name"] != entry.name
        ):
            return None
        return DesiredState(inputs=manifest, secret_outputs=["data", "stringData"])

    def _stored_secrets(self, workload: Workload) -> list[Secret]:
        """Return the secrets of a workload whose values are in the stack file."""
        return [secret for secret in workload.all_secrets if secret.source not in self.cluster.secrets]

    def _secret_sources(self, workload: Workload, target: SlotTarget | None) -> list[Manifest]:
        """Return the Secrets with the secret files of a workload, as sources of a projected volume."""
        owner, references = objects.object_name(workload, target), self.cluster.secrets
        stored = self._stored_secrets(workload)
        files = {secret.name: secret.name for secret in workload.secrets if secret in stored}
        sources = [_source(objects.secret_name(owner, stored), files)] if files else []
        for secret in workload.secrets:
            if reference := references.get(secret.source):
                external_name = objects.external_secret_name(owner, secret)
                key = reference.key if reference.secret else secret.name
                sources.append(_source(reference.secret or external_name, {key: secret.name}))
        return sources

    def _secret_reference(
        self, workload: Workload, secret: Secret, target: SlotTarget | None = None
    ) -> Mapping[str, str]:
        """Return the name and the key of the Kubernetes Secret that contains a secret of a workload."""
        owner, reference = objects.object_name(workload, target), self.cluster.secrets.get(secret.source)
        if not reference:
            return {"name": objects.secret_name(owner, self._stored_secrets(workload)), "key": secret.name}
        if reference.secret:
            return {"name": reference.secret, "key": reference.key}
        return {"name": objects.external_secret_name(owner, secret), "key": secret.name}

    def _patience(self, workload: Workload) -> float:
        """Return the time limit in seconds for a workload's pod to be scheduled, pull its image and pass its probe."""
        return workload.start_within + self.cluster.schedule_within

    def _pod(self, workload: Workload, target: SlotTarget | None, task: Task | None = None) -> Manifest:
        secrets = secret_variables(workload, task)
        environment = pod_spec.PodEnvironment(
            variables=variables(workload, target, self.app.ports, task),
            secret_keys={name: self._secret_reference(workload, secret, target) for name, secret in secrets.items()},
            secret_sources=self._secret_sources(workload, target),
            url=self.url,
        )
        return pod_spec.workload_pod(self.scope, workload, target, environment, task)


def _source(name: str, files: Mapping[str, str]) -> Manifest:
    return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in sorted(files.items())]}}
