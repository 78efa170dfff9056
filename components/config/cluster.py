"""Models of an environment on Kubernetes: the cluster, its namespace, Gateway and secrets."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Model
from .errors import problem
from .units import (
    Address,
    Cidr,
    Cpu,
    Distinct,
    Flag,
    Host,
    Memory,
    Name,
    Object,
    PublicAddress,
    Seconds,
    SecretName,
    Storage,
    Wait,
    Word,
)


class Quota(Model):
    """Limits of the whole namespace (ResourceQuota)."""

    cpu: Cpu | None = Field(default=None, description="Limit of the sum of all processor limits.")
    memory: Memory | None = Field(default=None, description="Limit of the sum of all memory limits.")
    storage: Storage | None = Field(default=None, description="Limit of the sum of all volume sizes.")
    pods: int | None = Field(
        examples=[50],
        default=None,
        ge=1,
        le=100_000,
        strict=True,
        description="Limit of the number of pods, including both slots and tasks.",
    )


class Limits(Model):
    """Default limits for containers without limits (LimitRange). Containers of this program have their own limits."""

    cpu: Cpu = Field(default=0.5, validate_default=False, description="Default limit of processors.")
    memory: Memory = Field(default=256 * 2**20, validate_default=False, description="Default limit of memory.")


class Namespace(Model):
    """Namespace of the environment. The namespace must contain nothing else."""

    name: Name | None = Field(default=None, description="Name of the namespace; default is `APP-STACK`.")
    create: Flag = Field(
        default=True,
        description="true: create the namespace. false: use an existing one; then a Role in it is sufficient (docs/kubernetes-role.yaml).",
    )
    quota: Quota | None = Field(default=None, description="Limits of the whole namespace (ResourceQuota).")
    limits: Limits | None = Field(
        default=None, description="Default limits for containers without limits (LimitRange)."
    )

    @model_validator(mode="after")
    def _not_of_the_cluster(self) -> Self:
        if self.name and (self.name.startswith("kube-") or (self.create and self.name == "default")):
            raise problem(f"namespace {self.name} belongs to the cluster", "use another name, or remove `name`")
        return self


class OwnGateway(Model):
    """A Gateway that the program creates in the application's namespace. Its listeners serve `url`, `hostnames` and the hosts of services."""

    gateway_class: Object = Field(examples=["traefik"], description="GatewayClass of the Gateway.")
    certificate: Object | None = Field(
        examples=["shop-certificate"], default=None, description="https: name of the Secret with the certificate."
    )
    issuer: Object | None = Field(
        examples=["letsencrypt"],
        default=None,
        description="https: ClusterIssuer of cert-manager that writes the certificate into the Secret.",
    )


class ClusterGateway(Model):
    """Gateway (gateway.networking.k8s.io) that users connect to."""

    name: Object = Field(examples=["public"], description="Name of the Gateway.")
    namespace: Name = Field(
        examples=["gateway"],
        description="Namespace of the Gateway. Only pods of this namespace may connect to web and api.",
    )
    listener: Object | None = Field(
        examples=["https"],
        default=None,
        description="Name of the Gateway's listener; default is all listeners that match the host.",
    )
    inside: Address = Field(
        examples=["http://traefik.gateway:80"],
        description="Address of the Gateway that pods connect to, for the smoke test, as in http://traefik.gateway:80. It may be outside "
        "of the cluster.",
    )
    pods_in: Name | None = Field(
        examples=["traefik"], default=None, description="Namespace of the Gateway's pods; default is `namespace`."
    )
    cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="Source addresses of requests, for a Gateway without pods that network policies can select.",
    )
    host_header: Literal["Host", "X-Forwarded-Host"] = Field(
        default="Host",
        description="Header by which the Gateway tells the hosts of services (`host`) apart. Traefik requires X-Forwarded-Host: its rules can't read Host, "
        "and it replaces an X-Forwarded-Host from the outside.",
    )
    within: Wait = Field(
        default=30, description="Time limit for the Gateway to apply a new route.", validate_default=False
    )
    create: OwnGateway | None = Field(
        default=None, description="Create the Gateway instead of using an existing one in `namespace`."
    )

    @model_validator(mode="after")
    def _listener_is_its_own(self) -> Self:
        if self.create and self.listener:
            raise problem(
                "`listener` has no effect with `create`, which makes a listener for each host", "remove `listener`"
            )
        return self


class SecretReference(Model):
    """Reference to the value of a secret in the cluster: in a Secret, or in a store of External Secrets."""

    secret: Object | None = Field(
        examples=["shop-secrets"], default=None, description="Name of an existing Secret in the namespace."
    )
    store: Object | None = Field(
        examples=["vault"],
        default=None,
        description="Name of a ClusterSecretStore of External Secrets, which creates the Secret.",
    )
    key: Word = Field(examples=["password"], description="Key of the value in the Secret or in the store.")
    property: Word | None = Field(
        examples=["password"], default=None, description="With `store`: property of the value."
    )
    version: Word = Field(
        default="1",
        description="Any text. Change it after a change of the value, to deploy the new value as a release.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.secret is None) == (self.store is None):
            raise problem("either `secret` or `store` is required, but not both", "set one of them")
        if self.property and not self.store:
            raise problem("`property` has an effect only with `store`", "remove `property`")
        return self


class Kubernetes(Model):
    """Cluster, namespace, Gateway and secrets of an environment on Kubernetes."""

    context: Word = Field(
        examples=["production"],
        description="Context of the kubeconfig (KUBECONFIG, or ~/.kube/config) that selects the cluster.",
    )
    url: PublicAddress = Field(
        examples=["https://shop.example.com"],
        description="Address that users open, as in https://shop.example.com. Its host is the host of the route.",
    )
    hostnames: tuple[Host, ...] = Field(default=(), description="Further host names of the route.")
    gateway: ClusterGateway = Field(description="Gateway that users connect to.")
    namespace: Namespace = Field(default=Namespace(), description="Namespace to deploy to.")
    apart: Literal["zones", "hosts", "anywhere"] = Field(
        default="hosts",
        description="Placement of the instances of a database with `ha`: no two in one zone, no two on one host, or anywhere (for a "
        "cluster with one node).",
    )
    schedule_within: Seconds = Field(
        default=60,
        description="Time limit for a pod to be scheduled and to pull its images, in addition to `start_within`.",
        validate_default=False,
    )
    pull_secrets: Annotated[tuple[Object, ...], Distinct] = Field(
        examples=[["registry"]], default=(), description="Names of the Secrets to pull images with."
    )
    secrets: dict[SecretName, SecretReference] = Field(
        default={}, description="Secrets whose values are in the cluster instead of the stack file: name → reference."
    )

    @model_validator(mode="after")
    def _quota_needs_own_namespace(self) -> Self:
        if not self.namespace.create and (self.namespace.quota or self.namespace.limits):
            raise problem(
                "`quota` and `limits` require `namespace.create: true`, because otherwise the administrator sets them",
                "remove `quota` and `limits`",
            )
        return self

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        hosts = [self.host, *self.hostnames]
        if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
            where = "is in both `url` and `hostnames`" if twice[0] == self.host else "occurs twice in `hostnames`"
            raise problem(f"{twice[0]} {where}", "list it once")
        return self

    @property
    def host(self) -> str:
        """Host name in `url`."""
        return self.url.partition("://")[2].partition(":")[0]

    def namespace_name(self, instance: str) -> str:
        """Return the name of the namespace: `namespace.name`, or else `instance` (`APP-STACK`)."""
        return self.namespace.name or instance

    @model_validator(mode="after")
    def _certificate_fits(self) -> Self:
        created = self.gateway.create
        if created and self.url.startswith("https:") and not created.certificate:
            raise problem("url is https, but gateway.create has no certificate", "set gateway.create.certificate")
        if created and self.url.startswith("http:") and (created.certificate or created.issuer):
            raise problem(
                "url is http, but gateway.create has a certificate", "use https in url, or remove the certificate"
            )
        return self
