"""Tests of the interface that both platforms implement.

The tests cover the choice of the platform, the foundation (provider, networks and volumes), the providers of components, and
the refusal of a database cluster on Docker.
"""

from unittest import mock

import pulumi
import pytest
from pulumi import ProviderResource, ResourceOptions

from components import (
    Application,
    ConfigError,
    Context,
    DatabaseCluster,
    DataService,
    DataServiceArgs,
    Gateway,
    GatewayArgs,
    ReleaseError,
    plan_rollout,
    platforms,
)
from components.config import load_app, load_environment
from components.platforms import DeploysClusters
from components.platforms.docker.deploy import DockerDeployer
from components.platforms.docker.inspect import DockerInspector
from components.platforms.kubernetes.deploy import KubernetesDeployer
from components.platforms.kubernetes.inspect import KubernetesInspector

from .program import Registered, deploy, environment, project

STACKS = ("dev", "staging")


@pytest.mark.parametrize(("stack", "inspector"), [("dev", DockerInspector), ("staging", KubernetesInspector)])
def test_inspector_of_a_stack_belongs_to_the_configured_platform(stack: str, inspector: type) -> None:
    app = load_app(project())
    assert isinstance(platforms.inspector(app, load_environment(environment(stack), app), stack), inspector)


def test_database_clusters_of_a_stack_on_docker_can_not_be_inspected() -> None:
    app = load_app(project())
    with pytest.raises(ConfigError, match=r"environment\.platform: the platform docker has no database clusters; "):
        platforms.cluster_inspector(app, load_environment(environment("dev"), app), "dev")


@pytest.mark.parametrize("stack", STACKS)
def test_location_and_deployer_use_the_same_metrics_namespace(stack: str) -> None:
    app = load_app(project())
    location = platforms.locate_configured(app, load_environment(environment(stack), app), stack)
    labels: list[str] = []

    def body() -> None:
        context = Context.load()
        labels.append(plan_rollout(context, Application.from_context(context)).platform.namespace)

    deploy(stack=stack, body=body)
    assert labels == [location.metrics_namespace]


@pytest.mark.parametrize("stack", STACKS)
def test_refused_rollback_registers_no_resource(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    registrations: list[Registered] = []
    with pytest.raises(ReleaseError):
        deploy(stack=stack, registrations=registrations)
    assert registrations == []


@pytest.mark.parametrize("stack", STACKS)
def test_plan_rollout_registers_only_the_foundation_component_and_its_children(stack: str) -> None:
    def body() -> None:
        context = Context.load()
        plan_rollout(context, Application.from_context(context))

    deployed = deploy(stack=stack, body=body)
    [foundation] = [entry for entry in deployed if entry.name == "ground"]
    assert {entry.parent for entry in deployed if entry is not foundation} == {foundation.urn}


@pytest.mark.parametrize("stack", STACKS)
def test_child_resources_use_the_provider_of_the_parent_component(stack: str) -> None:
    def body() -> None:
        context = Context.load()
        platform = plan_rollout(context, Application.from_context(context)).platform
        own_provider = ProviderResource(context.environment.platform, "own_provider", {}, ResourceOptions())
        options = ResourceOptions(providers=[own_provider])
        parent = pulumi.ComponentResource("own:index:Shop", "shop", None, options)
        Gateway("gateway", GatewayArgs(platform=platform), ResourceOptions(parent=parent))

    deployed = deploy(stack=stack, body=body)
    [gateway] = [entry for entry in deployed if entry.type == "tiers:switch:Gateway"]
    children = [entry for entry in deployed if entry.custom and deployed.inside(entry, "tiers:switch:Gateway")]
    assert children and gateway
    assert {entry.provider.rpartition("::")[0].rpartition("::")[2] for entry in children} == {"own_provider"}


def test_only_kubernetes_deploys_database_clusters() -> None:
    assert issubclass(KubernetesDeployer, DeploysClusters)
    assert not issubclass(DockerDeployer, DeploysClusters)


def test_database_cluster_on_docker_is_refused() -> None:
    def body() -> None:
        cluster = mock.Mock(spec=DatabaseCluster, tier="database")
        DataService("database", DataServiceArgs(platform=mock.Mock(spec=DockerDeployer), data=cluster))

    with pytest.raises(
        ConfigError, match=r"^environment\.tiers\.database\.ha: this platform has no database clusters; "
    ):
        deploy(body=body)
