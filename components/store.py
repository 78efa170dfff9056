"""Stores: further services (`app.services`) that both slots share, with any image, such as MySQL, RabbitMQ, MinIO or Mailpit."""

from dataclasses import dataclass

from .config import Store as StoreConfig
from .context import Description
from .model.workload import Probe, Workload, Zone
from .rendering import data_image
from .secret_templates import secret_env, secret_files
from .service import DataService, DataServiceArgs


def workload(name: str, settings: StoreConfig, description: Description) -> Workload:
    """Return the workload of a store: one instance of its image.

    Args:
        name: name of the store in `app.services`.
        settings: settings of the store.
        description: the application and its environment.
    """
    size = description.environment.tier_settings(name)
    secrets = [description.secrets[secret] for secret in sorted(set(settings.secrets))]
    return Workload(
        tier=name,
        belongs_to=settings.tier,
        path=description.app.path(name),
        image=data_image(name, settings, description),
        resources=description.resources(name),
        command=settings.command,
        entrypoint=settings.entrypoint,
        env=tuple(sorted(settings.env.items())),
        secrets=(*secrets, *secret_files(settings, description, {})),
        secret_env=secret_env(settings, description, {}),
        port=settings.port,
        probe=Probe(path=settings.health, port=settings.port) if settings.health else Probe(command=settings.alive),
        zones=(Zone.DATA, *([Zone.OUTSIDE] if settings.egress else [])),
        egress=settings.egress,
        priority=size.priority_class,
        writable=tuple(sorted(settings.writable)),
        scratch=settings.scratch,
        volumes=tuple(description.volume(name, volume, path) for volume, path in sorted(settings.volumes.items())),
        user=settings.uid,
        start_within=settings.start_within,
        stop_within=settings.stop_within,
    )


@dataclass(frozen=True, kw_only=True)
class StoreArgs(DataServiceArgs):
    """Arguments of `Store`, the same as those of `DataService`."""


class Store(DataService):
    """Deploy a store, which both slots share.

    Deploying a release changes no resource of the store. A change of the store itself, such as another image, replaces its
    instance: the old instance stops before the new one starts, so services can't connect for a moment.

    Args:
        name: resource name, which is part of the state.
        args: see `StoreArgs`.
        opts: options of the component. `protect` applies to every child; `environment.protect_data` protects the volumes only.

    Example:
        mailpit = Store("mailpit", StoreArgs(platform=platform, data=application.data["mailpit"]))
        pulumi.export("mailpit", mailpit.url)
    """
