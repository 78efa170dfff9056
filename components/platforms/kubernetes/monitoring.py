"""Operations for monitoring on Kubernetes: deploy metrics exporters, and objects that configure the cluster's Prometheus."""

from collections.abc import Mapping, Sequence

from pulumi import Output, Resource

from ...model.workload import Workload
from ...observability.alerts import MonitoringScope
from . import manifests, operated
from .secrets import SecretOperations


class MonitoringOperations(SecretOperations):
    """Operations that collect metrics and publish the live release."""

    def deploy_monitoring(
        self,
        parent: Resource,
        monitored: MonitoringScope,
        exporters: Mapping[str, Workload],
        after: Mapping[str, Sequence[Resource]],
    ) -> None:
        exporters_by_tier = {str(tier): exporter for tier, exporter in exporters.items()}
        provisioned = self.provision(parent, list(exporters.values()), None)
        policies = [
            self.object(parent, policy) for policy in operated.policies(self.scope, monitored, exporters_by_tier)
        ]
        for tier, exporter in exporters.items():
            around = [
                manifests.service(self.scope, exporter, None),
                manifests.disruption_budget(self.scope, exporter, None),
            ]
            prerequisites = [*policies, *(self.object(parent, one) for one in around), *self.foundation.resources]
            manifest = operated.deployment(self.scope, exporter, tier, self._pod(exporter, None))
            depends_on = [*provisioned.values(), *prerequisites, *after[tier]]
            self._register_and_wait(
                parent, manifest, depends_on, self._patience(exporter), exporter.image.path, impact=self.impact
            )
        monitors = operated.monitors(self.scope, monitored, exporters_by_tier)
        for item in [
            *monitors,
            operated.rules(self.scope, monitored),
            operated.dashboard_config_map(self.scope, monitored),
        ]:
            self.object(parent, item)

    def publish_release(self, parent: Resource, monitored: MonitoringScope, live: Output[Mapping[str, str]]) -> None:
        labels = {name: live.apply(lambda live, name=name: live[name]) for name in ("release", "slot")}
        self.object(parent, operated.release_rule(self.scope, monitored, labels))
