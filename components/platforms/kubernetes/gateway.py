"""Operations on routes: the gateway, the routes of a slot, and the switch."""

from collections.abc import Sequence

from pulumi import Output, Resource, ResourceHook, ResourceHookArgs

from ...model.names import LABEL_SWITCH
from ...model.workload import Route
from ...options import before_change
from ...release.checkpoint import LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT, Entry, observe
from ..base import Dependencies, DesiredState, SlotTarget
from . import client, errors, policies
from .objects import Manifest
from .registrar import Registrar, created_output
from .routes import HTTP_ROUTE, header_rules, http_route, live_rules, own_gateway, slot_spec

TAKE_OVER_ANNOTATIONS = {"pulumi.com/patchFieldManager": "tiers-switch", "pulumi.com/patchForce": "true"}
"""Annotations for an HTTPRoute that already exists. The Pulumi resource then takes over fields that another resource has set."""


class GatewayOperations(Registrar):
    """Operations that route users to slots."""

    def deploy_gateway(self, parent: Resource) -> Resource:
        smoke_policy = self.object(parent, policies.gateway_policy(self.scope, self.cluster))
        own_hosts = self.environment.own_hosts(self.app).values()
        gateway = own_gateway(self.scope, self.cluster, own_hosts)
        return self.object(parent, gateway, [smoke_policy]) if gateway else smoke_policy

    def route_slot(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Dependencies:
        # From now on, requests with the cookie of this slot's previous release go to the live slot. Pods of the previous release
        # still answer for a while.
        labels = self.scope.labels(self.app.name, "preview", target)
        spec = self._slot_spec(routes, target)
        return [self.object(parent, http_route(self.scope, f"{self.app.name}-{target.slot}", labels, spec), after)]

    def suspended_route(self, entry: Entry) -> DesiredState | None:
        if entry.role != "preview":
            return None
        spec = dict(entry.inputs["spec"])
        return DesiredState(inputs={**entry.inputs, "spec": spec | {"rules": header_rules(spec["rules"])}})

    def active_route(self, entry: Entry) -> DesiredState:
        return DesiredState(inputs=entry.inputs)

    def move_traffic(
        self, parent: Resource, target: SlotTarget, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        manifest = self._live_route(target, routes, count)
        if count > 1 and not self.checkpoint.find(HTTP_ROUTE, self.app.name):
            manifest["metadata"]["annotations"] = dict(TAKE_OVER_ANNOTATIONS)
        hooks = errors.explain(f"the switch to {target.slot}", manifest, self.cluster.context, impact=self.impact)
        if routes is None:
            hooks.before_create = hooks.before_update = self._readiness_hook(target)
        return created_output(self.object(parent, manifest, after, hooks=hooks))

    def _live_route(self, target: SlotTarget, routes: Sequence[Route] | None, count: int) -> Manifest:
        """Return the HTTPRoute that sends all traffic to a slot.

        If `routes` is None, use the rules of the slot's HTTPRoute in the checkpoint. If the checkpoint has no such HTTPRoute,
        use the routes of the release.
        """
        spec = self._kept_spec(target) if routes is None else None
        slot_routes = target.release.routes if routes is None else routes
        spec = spec or self._slot_spec(slot_routes, target)
        labels = self.scope.labels(self.app.name, "switch", target) | {LABEL_SWITCH: str(count)}
        live = {**spec, "rules": live_rules(spec["rules"], by_host=any(route.host for route in slot_routes))}
        return http_route(self.scope, self.app.name, labels, live)

    def _slot_spec(self, routes: Sequence[Route], target: SlotTarget) -> Manifest:
        other = observe(self.checkpoint).slots.get(target.slot.other)
        return slot_spec(self.scope, self.cluster, routes, target, other.release.routes if other else ())

    def restore_switch(
        self, parent: Resource, target: SlotTarget, count: int, after: Dependencies, *, before_switch: bool
    ) -> Output[Resource]:
        manifest = self._live_route(target, None, count)
        manifest["metadata"]["annotations"] = dict(TAKE_OVER_ANNOTATIONS)
        # An update can't register two states of one resource. Before a switch, a second resource therefore manages the same object.
        # The object stays when Pulumi deletes the second resource.
        options = {"name": f"{self.app.name}-again", "retain_on_delete": True} if before_switch else {}
        hooks = errors.explain(f"the switch to {target.slot}", manifest, self.cluster.context, impact=self.impact)
        return created_output(self.object(parent, manifest, after, hooks=hooks, **options))

    def _readiness_hook(self, target: SlotTarget) -> list[ResourceHook]:
        """Return a hook that runs before a kept slot goes live, to check that its Deployments are available."""
        client.prefetch()

        def check_readiness(_: ResourceHookArgs) -> None:
            self.inspector.check_ready(target.slot, self.impact)

        return before_change(f"ask-{target.slot}", check_readiness)

    def _kept_spec(self, target: SlotTarget) -> Manifest | None:
        """Return the spec of a kept slot's HTTPRoute from the checkpoint, or None if no HTTPRoute has this slot and release.

        Hosts and ports in this spec may differ from the current configuration.
        """
        labels = {LABEL_ROLE: "preview", LABEL_SLOT: str(target.slot), LABEL_RELEASE: str(target.release)}.items()
        entries = (entry for entry in self.checkpoint.entries if entry.custom and labels <= entry.labels.items())
        return next((dict(entry.inputs["spec"]) for entry in entries), None)
