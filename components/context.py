"""Inputs of a program: the stack, its configuration, its secrets and its checkpoint.

A program creates one `Context` and passes it to all components. Components read no global state.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
from pulumi import Output

from . import config
from .config import App, Environment, Settings, passwords
from .model.services import AccessMode
from .model.workload import Resources, Scale, Secret, Volume
from .options import has_engine
from .release import recorded
from .release.checkpoint import Checkpoint, CheckpointExport


@dataclass(frozen=True, kw_only=True)
class Description:
    """Checked configuration of an application in one environment, without the values of secrets.

    A `Description` contains only names and versions of secrets, so functions that render workloads can't leak a value.

    Example:
        description = Context.load().description
        pulumi.export("replicas", description.scale("web").replicas)
    """

    app: App
    """The application (`app` in Pulumi.yaml)."""
    environment: Environment
    """The environment (`environment` in Pulumi.<stack>.yaml)."""
    secrets: Mapping[str, Secret]
    """Name, version and file path of each secret, by name."""
    stack: str
    """Name of the stack, such as `prod`."""
    root: Path
    """Folder of Pulumi.yaml. Build contexts and mounts are relative to this folder."""

    @property
    def instance(self) -> str:
        """Name of the application in this stack, such as `shop-prod`. Names of resources begin with this name."""
        return f"{self.app.name}-{self.stack}"

    def resources(self, tier: str) -> Resources:
        """Return the processor and memory limits of a tier in this environment."""
        size = self.environment.tier_settings(tier)
        return Resources(cpu=size.cpu, memory=size.memory, reserve=size.reserve)

    def scale(self, tier: str) -> Scale:
        """Return the number of replicas of a tier in this environment."""
        size = self.environment.tier_settings(tier)
        return Scale(replicas=size.replicas, most=size.autoscale.max if size.autoscale else None)

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        """Names of the Kubernetes Secrets with registry credentials (`imagePullSecrets`); empty on Docker."""
        cluster = self.environment.kubernetes
        return cluster.pull_secrets if cluster else ()

    def volume(self, tier: str, name: str, mount: str) -> Volume:
        """Return a volume of a tier, with the size and storage class of this environment.

        Args:
            tier: name of the service.
            name: name of the volume.
            mount: absolute path in the container; the suffix `:ro` makes the mount read-only.
        """
        size, path = self.environment.tier_settings(tier), mount.removesuffix(":ro")
        read_only = path != mount
        record = self.app.catalogue.find(tier)
        return Volume(
            name=name,
            path=path,
            read_only=read_only,
            size=size.capacity,
            storage_class=size.storage_class,
            access=record.volume_access if record else AccessMode.ANY_NODE,
        )


@dataclass(frozen=True, kw_only=True)
class Context:
    """Configuration, secrets and checkpoint of the current stack.

    Creating a context checks the configuration. Errors are raised before any resource is registered.

    Example:
        context = Context.load()  # from Pulumi.yaml and Pulumi.<stack>.yaml
        app = {"name": "notes", "version": "1.0.0", "api": {"image": "notes:1.0.0", "port": 8000}}
        context = Context.from_values(app=app, environment={"platform": "docker"})  # from the program itself
    """

    description: Description
    """Checked configuration, without the values of secrets."""
    project: str
    """Name of the Pulumi project. The keys of the stack file begin with this name."""
    sealed: Output[Mapping[str, str]] = field(repr=False)
    """Values of the secrets by name. Pulumi encrypts this output in the state."""
    read_checkpoint: Callable[[], Checkpoint] = field(repr=False)
    """Function that returns the checkpoint of the stack before this update. The function waits until
    `pulumi stack export` has ended."""
    plain: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    """Unchecked values of `app` and `environment`. `Switch` records them in the state, for a rollback while the configuration
    files are invalid."""
    started_at: float = field(default_factory=time.monotonic, repr=False)
    """Time at which the program started, in seconds (`time.monotonic`). The journal of switches records how many
    seconds after this time each gate passed."""
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    """Environment variables of the process. TIERS_RELEASE, TIERS_FORCE and TIERS_LIVE control the update
    (`plan_rollout`). TIERS_WHO is the name in the journal of switches."""

    @classmethod
    def load(cls) -> "Context":
        """Return the context of the current stack, from Pulumi.yaml and Pulumi.<stack>.yaml.

        If the files are invalid, a rollback (`TIERS_RELEASE=previous`) uses the settings that the last successful update
        recorded.

        Raises:
            ConfigError: a value is invalid. No resource has been changed.
        """
        # Start the export of the checkpoint before reading the configuration, because both can run at the same time.
        stack, root = pulumi.get_stack(), pulumi.get_root_directory()
        export = CheckpointExport(stack, root)
        return cls._from_settings(recorded.load(Path(root), stack, os.environ, export.answer), export.answer)

    @classmethod
    def from_values(
        cls,
        *,
        app: Mapping[str, object],
        environment: Mapping[str, object],
        secrets: Mapping[str, str] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> "Context":
        """Return the context of the current stack, from values of the program instead of files.

        Args:
            app: the application, with the keys of `app` in Pulumi.yaml (docs/configuration.md).
            environment: the environment, with the keys of `environment` in Pulumi.<stack>.yaml.
            secrets: values of the secrets by name; None to read the `secrets` of the stack file. Pulumi encrypts the
                values in the state.
            checkpoint: checkpoint of the stack; None to read it with `pulumi stack export`. In unit tests with mocks, None
                means an empty checkpoint.

        Raises:
            ConfigError: a value is invalid. No resource has been changed.
        """
        settings = config.settings_of(dict(app), dict(environment), dict(secrets or {}))
        if checkpoint is not None or not has_engine():
            return cls._from_settings(settings, lambda: checkpoint or Checkpoint())
        return cls._from_settings(settings, CheckpointExport(pulumi.get_stack(), pulumi.get_root_directory()).answer)

    @classmethod
    def _from_settings(cls, settings: Settings, read_checkpoint: Callable[[], Checkpoint]) -> "Context":
        stack = pulumi.get_stack()
        description = Description(
            app=settings.app,
            environment=settings.environment,
            secrets=secrets_of(settings, f"{settings.app.name}/{stack}"),
            stack=stack,
            # Unit tests with mocks have no Pulumi.yaml, so they use the current folder.
            root=Path(pulumi.get_root_directory()) if has_engine() else Path.cwd(),
        )
        return cls(
            description=description,
            project=pulumi.get_project(),
            sealed=settings.sealed,
            read_checkpoint=read_checkpoint,
            plain=settings.plain,
        )

    @property
    def app(self) -> App:
        """The application (`app` in Pulumi.yaml)."""
        return self.description.app

    @property
    def environment(self) -> Environment:
        """The environment (`environment` in Pulumi.<stack>.yaml)."""
        return self.description.environment

    @property
    def stack(self) -> str:
        """Name of the stack, such as `prod`."""
        return self.description.stack

    @property
    def root(self) -> Path:
        """Folder of Pulumi.yaml."""
        return self.description.root

    @property
    def stack_file(self) -> Path:
        """Path of Pulumi.<stack>.yaml, which may not exist."""
        return self.root / f"Pulumi.{self.stack}.yaml"

    @property
    def checkpoint(self) -> Checkpoint:
        """Checkpoint of the stack before this update."""
        return self.read_checkpoint()


def secrets_of(settings: Settings, scope: str) -> dict[str, Secret]:
    """Return the name and version of each secret, without the value.

    The version is a hash of the value, so a changed value makes a new release. If the value is in the cluster, the version is a
    hash of the reference to the value.

    Versions are visible in names of objects and in the state, so an attacker could guess values and compare the hashes. The
    hash function scrypt makes each guess take some milliseconds. Short or common values can still be guessed, so secrets must
    be long and random.

    Args:
        settings: the configuration, with the values of the secrets.
        scope: application and stack, as in `shop/prod`. Equal values have different versions in different scopes.
    """

    def version(name: str, value: str) -> str:
        return hashlib.scrypt(value.encode(), salt=f"{scope}/{name}".encode(), n=2**9, r=8, p=1, dklen=8).hex()

    references = {name: str(reference) for name, reference in settings.environment.secrets_in_cluster.items()}
    return {
        name: Secret(
            name=name,
            version=version(name, value),
            plain=name not in references and passwords.needs_no_quotes(value),
            pairable=name in references or passwords.fits_key_value_list(value),
        )
        for name, value in (settings.secrets | references).items()
    }
