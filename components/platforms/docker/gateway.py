"""Operations on the gateway: deploy its container, claim a slot, run the smoke test, and switch traffic.

A claim adds a slot's release and routes to the gateway. Claim and switch are one-shot containers: they write the gateway's files
and send commands to HAProxy. The module `haproxy` renders the configuration.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pulumi_docker as docker
from pulumi import Output, Resource, ResourceHook, ResourceHookArgs, ResourceHookBinding

from ...model import names
from ...model.workload import Image, Probe, Resources, Route, Zone
from ...options import before_change
from ...release.checkpoint import LABEL_ATTEMPT, LABEL_RELEASE, LABEL_SLOT, Entry, observe
from ...state.docker import without_label
from ..base import SHARED, Dependencies, DesiredState, SlotTarget
from ..gateway import smoke_checks
from ..process import Process
from . import haproxy
from .containers import hardened_args, healthcheck_command
from .errors import explain_container
from .images import remote_image
from .registrar import Registrar


class GatewayOperations(Registrar):
    """Operations that route users to slots through the gateway."""

    def deploy_gateway(self, parent: Resource) -> Resource:
        gateway = self.environment.gateway
        image = Image(reference=gateway.image, path="environment.gateway.image")
        name = "gateway"
        args = hardened_args(
            f"{self.prefix}-gateway",
            remote_image(parent, image, self.provider_for(parent)).image_id,
            self._labels("gateway", name),
            Process(
                command=("sh", "-c", haproxy.START),
                user=haproxy.USER,
                resources=Resources(cpu=gateway.cpu, memory=gateway.memory),
            ),
        )
        args.envs = [f"CONFIG={haproxy.FIRST}"]
        probe = Probe(path="/.gateway/health", port=haproxy.PORT)
        args.healthcheck = docker.ContainerHealthcheckArgs(
            tests=healthcheck_command(probe), interval="5s", timeout="6s", retries=3
        )
        args.networks_advanced = self._networks([Zone.OUTSIDE, Zone.EDGE], "gateway")
        ports = {haproxy.PORT: gateway.port, **{haproxy.own_port(tier): port for tier, port in gateway.ports.items()}}
        args.ports = [
            docker.ContainerPortArgs(internal=inside, external=port, ip=gateway.address)
            for inside, port in sorted(ports.items())
        ]
        if gateway.metrics_port:
            args.ports.append(
                docker.ContainerPortArgs(internal=haproxy.METRICS_PORT, external=gateway.metrics_port, ip="127.0.0.1")
            )
        args.volumes = [
            docker.ContainerVolumeArgs(
                container_path=haproxy.FOLDER, volume_name=self._volume(parent, names.GATEWAY_STATE, names.GATEWAY).name
            )
        ]
        args.stop_timeout = args.destroy_grace_seconds = 30
        return docker.Container(
            name,
            args,
            opts=self._options(
                parent,
                hooks=explain_container(
                    name,
                    f"{self.prefix}-gateway",
                    "environment.gateway",
                    0,
                    self.inspector.location,
                    impact=lambda: SHARED,
                ),
                delete_before_replace=True,
            ),
        )

    def route_slot(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Dependencies:
        # The claim adds the release and the routes of this slot to the gateway. The routes of the other slot stay.
        other = observe(self.checkpoint).slots.get(target.slot.other)
        text = haproxy.stack_configuration(
            {target.slot: routes, target.slot.other: other.release.routes if other else routes}, self.environment
        )
        checks = [
            self._check_configuration(parent, target, text, gateway)
            for gateway in after
            if isinstance(gateway, docker.Container)
        ]
        name = f"{target.slot}-claim"
        args = self._gateway_command_args(
            name, self._labels("claim", name, target), target.slot, str(target.release), text
        )
        return [
            self._one_shot(
                parent, name, args, f"environment.gateway: adding the routes of slot {target.slot}", [*after, *checks]
            )
        ]

    def _check_configuration(
        self, parent: Resource, target: SlotTarget, text: str, gateway: docker.Container
    ) -> Output[Resource]:
        """Check the configuration `text` with `haproxy -c` in a container. The claim waits for this check."""
        name = f"{target.slot}-gateway-check"
        args = hardened_args(
            f"{self.prefix}-{name}",
            gateway.image,
            self._labels("task", name, target),
            Process(command=("sh", "-c", haproxy.CHECK), user=haproxy.USER, writable=(haproxy.FOLDER,)),
        )
        args.envs = [f"CONFIG={text}"]
        args.network_mode = "none"
        description = f"environment.gateway.image: the check of the routes of {target.slot} by `haproxy -c` of {self.environment.gateway.image}"
        return self._one_shot(parent, name, args, description, [gateway])

    def suspended_route(self, entry: Entry) -> DesiredState | None:
        return self._desired_claim(entry, None) if entry.role == "claim" else None

    def active_route(self, entry: Entry) -> DesiredState:
        return self._desired_claim(entry, entry.labels[LABEL_RELEASE])

    def _desired_claim(self, entry: Entry, release: str | None) -> DesiredState:
        """Return the desired state that makes a kept slot's claim run again, without changing routes.

        The claim writes `release` to the gateway as the release of the slot. If `release` is None, the claim removes the slot's
        release, and requests with a release cookie no longer go to the slot.
        """
        inputs = without_label(entry.inputs, LABEL_ATTEMPT)
        words: list[str] = inputs["command"]
        inputs["command"] = words[: words.index("route") + 4] + ([release] if release else [])
        attempt_labels = self.checkpoint.attempt_label(entry.name).items()
        inputs["labels"] = [*inputs["labels"], *({"label": name, "value": value} for name, value in attempt_labels)]

        def require_success(resource: Any) -> Output[Resource]:
            return self._require_success(
                resource, resource.exitCode, resource.containerLogs, f"{entry.name}: the container"
            )

        return DesiredState(inputs=inputs, reads=("exitCode", "containerLogs"), passed=require_success)

    def _gateway_command_args(
        self, name: str, labels: Mapping[str, str], key: str, value: str, *text: str
    ) -> docker.ContainerArgs:
        args = self._toolbox_args(name, labels, "route", haproxy.FOLDER, haproxy.CLAIM_WITHIN, key, value, *text)
        args.network_mode = "none"
        args.volumes = [
            docker.ContainerVolumeArgs(container_path=haproxy.FOLDER, volume_name=f"{self.prefix}-{names.GATEWAY}")
        ]
        return args

    def run_smoke_test(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Output[Resource]:
        name = f"{target.slot}-smoke"
        # Send the Host header that users send, because an application may refuse other names.
        host = urlsplit(self.url).netloc
        arguments = [f"http://gateway:{haproxy.PORT}", host, target.slot, "30", smoke_checks(self.app, routes)]
        args = self._toolbox_args(name, self._labels("smoke", name, target), "smoke", *arguments)
        args.networks_advanced = self._networks([Zone.EDGE])
        return self._one_shot(parent, name, args, f"the smoke test of slot {target.slot}", after)

    def move_traffic(
        self, parent: Resource, target: SlotTarget, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        # Each switch is a new resource. Pulumi deletes the resource of the previous switch only after the new resource exists, so the
        # checkpoint always contains a switch.
        name, args = self._switch_args(target, count)
        hooks = None if routes else ResourceHookBinding(before_create=self._health_hook(target))
        return self._one_shot(parent, name, args, f"the switch to {target.slot}", after, hooks=hooks)

    def restore_switch(
        self, parent: Resource, target: SlotTarget, count: int, after: Dependencies, *, before_switch: bool
    ) -> Output[Resource]:
        name, args = self._switch_args(target, count)
        return self._one_shot(parent, name, args, f"the repeated switch to {target.slot}", after)

    def _switch_args(self, target: SlotTarget, count: int) -> tuple[str, docker.ContainerArgs]:
        """Return the name and the arguments of the container that makes a slot live."""
        name = f"switch-{count}"
        labels = self._labels("switch", name, switch=str(count)) | {LABEL_SLOT: target.slot}
        return name, self._gateway_command_args(name, labels, "live", target.slot)

    def _health_hook(self, target: SlotTarget) -> list[ResourceHook]:
        """Return a hook that checks the health of a kept slot's containers before the slot goes live."""

        def check_health(_: ResourceHookArgs) -> None:
            self.inspector.check_ready(target.slot, self.impact)

        return before_change(f"ask-{target.slot}", check_health)
