"""Workloads that both slots share: single instances and replicated workloads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pulumi
from pulumi import Resource

from ...model.workload import Replicated, ScheduledCommand, Workload
from ...state.kubernetes import STATEFUL_SET
from ..base import SHARED, Dependencies, SlotTarget
from . import manifests, policies, replicated
from .objects import Manifest
from .secrets import SecretOperations

W = TypeVar("W", bound=Workload)


class StatefulOperations(SecretOperations):
    """Operations that deploy workloads outside of the slots."""

    def _register_network_objects(
        self, parent: Resource, workload: Workload, target: SlotTarget | None, after: Dependencies = ()
    ) -> list[Resource]:
        """Register the network policies, Service and disruption budget of a workload."""
        # A shared tier accepts connections even if no current service needs it, because a kept slot may still need it.
        needed = target is None or any(workload.tier in service.needs for service in self.app.slot_services.values())
        rendered = [
            *policies.workload_policies(
                self.scope,
                workload,
                target,
                self.cluster,
                routed=self.app.catalogue.is_routed(workload.tier),
                needed=needed,
            ),
            *([manifests.service(self.scope, workload, target)] if workload.port else []),
            manifests.disruption_budget(self.scope, workload, target),
        ]
        return [self.object(parent, manifest, after) for manifest in rendered]

    def deploy_stateful(
        self, parent: Resource, workload: Workload, provisioned: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        if isinstance(workload, Replicated):
            return self._deploy_members(parent, workload, provisioned)
        prerequisites = self._register_network_objects(parent, workload, None)
        pods = manifests.service(self.scope, workload, None, pods=True)
        prerequisites.append(self.object(parent, pods))
        prerequisites += [
            self.register_volume_claim(parent, workload.tier, volume)
            for volume in workload.volumes
            if volume.name not in self.app.volumes
        ]
        if workload.scripts:
            prerequisites.append(self.object(parent, manifests.scripts(self.scope, workload)))
        workload = self._with_deployed_command(workload, workload.tier)
        manifest = self._with_preview_name(manifests.stateful_set(self.scope, workload, self._pod(workload, None)))
        after = [*prerequisites, *provisioned.values(), *self.foundation.resources]
        return [
            self._register_and_wait(
                parent,
                manifest,
                after,
                self._patience(workload) + workload.stop_within,
                workload.path or f"app.{workload.tier}",
                impact=lambda: SHARED,
                name=workload.tier,
                delete_before_replace=True,  # Otherwise two pods could use the same data.
            )
        ]

    def _deploy_members(
        self, parent: Resource, workload: Replicated, provisioned: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        provisioned = {**provisioned, **self.provision(parent, [workload.proxy], None)}
        prerequisites = [self.object(parent, member) for member in replicated.network_objects(self.scope, workload)]
        members = replicated.members(workload)
        prerequisites += [self.register_volume_claim(parent, workload.tier, member.volume) for member in members]
        running: list[Resource] = []
        # Change existing members one after the other. Start new members together, because two members must agree on the primary.
        # With a new password start all members together, because members with the new password can't connect to members with the
        # old password.
        one_by_one = all(self._has_current_password(member) for member in members)
        for member in members:
            spec = self._pod(self._with_deployed_command(member.workload, member.resource), None)
            running.append(
                self._register_and_wait(
                    parent,
                    self._with_preview_name(
                        replicated.stateful_set(self.scope, workload, member, spec), member.resource
                    ),
                    [
                        *prerequisites,
                        *provisioned.values(),
                        *self.foundation.resources,
                        *(running if one_by_one else ()),
                    ],
                    self._patience(workload) + workload.stop_within,
                    f"app.{workload.tier}",
                    impact=lambda: SHARED,
                    name=member.resource,
                    delete_before_replace=True,  # Otherwise two pods could use the same data.
                )
            )
        manifest = replicated.deployment(
            self.scope, workload, self._pod(workload.proxy, None), self._patience(workload.proxy)
        )
        proxy = self._register_and_wait(
            parent, manifest, [*running, *provisioned.values()], self._patience(workload.proxy), f"app.{workload.tier}"
        )
        return [*running, proxy]

    def _with_deployed_command(self, workload: W, resource: str) -> W:
        """Return `workload` with the command `workload.former` if it is deployed with this command and the current secrets.

        The new command would restart the workload. In all other cases return `workload` unchanged.
        """
        deployed = self.checkpoint.find(STATEFUL_SET, resource)
        if not (workload.former and deployed):
            return workload
        template = deployed.inputs["spec"]["template"]
        is_same = template["metadata"]["annotations"] == manifests.secret_versions(workload)
        is_same = is_same and template["spec"]["containers"][0]["command"] == list(workload.former)
        return replace(workload, command=workload.former) if is_same else workload

    def _has_current_password(self, member: replicated.Member) -> bool:
        """Return whether a member is deployed with the current password. Only such a member can connect to new members."""
        deployed = self.checkpoint.find(STATEFUL_SET, member.resource)
        if deployed is None or deployed.inputs["metadata"]["name"] != member.name:
            return False
        annotations = deployed.inputs["spec"]["template"]["metadata"]["annotations"]
        return annotations == manifests.secret_versions(member.workload)

    def deploy_scheduled(
        self,
        parent: Resource,
        workload: Workload,
        commands: Sequence[ScheduledCommand],
        provisioned: Mapping[str, Resource],
    ) -> Sequence[Resource]:
        # Only one node can mount the volumes of a store. A pod that always mounted them would keep the store from moving to another node.
        own = tuple(volume for volume in workload.volumes if not (workload.reads_store and volume.read_only))
        resources = self.deploy_stateful(parent, replace(workload, volumes=own), provisioned)
        for command in commands:
            mounting = workload if command.reads_volumes else replace(workload, volumes=own, reads_store="")
            manifest = manifests.cron_job(self.scope, mounting, command, self._pod(mounting, None, command))
            self.object(parent, manifest, [*resources, *provisioned.values()])
        return resources

    def _with_preview_name(self, manifest: Manifest, resource: str | None = None) -> Manifest:
        """Return a StatefulSet's manifest. In a preview, change the name if the update replaces the StatefulSet.

        With the original name the preview would fail: the provider sends the manifest as a dry run, and the API server refuses to
        change the immutable selector. For other kinds, but not for a StatefulSet, the provider recognises this error and retries
        with another name (pulumi-kubernetes, await.go).
        """
        deployed = self.checkpoint.find(STATEFUL_SET, resource or manifest["metadata"]["name"])
        if not (
            pulumi.runtime.is_dry_run()
            and deployed
            and deployed.inputs["spec"]["selector"] != manifest["spec"]["selector"]
        ):
            return manifest
        return manifest | {"metadata": manifest["metadata"] | {"name": f"{manifest['metadata']['name']}-preview"}}
