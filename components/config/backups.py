"""Models of backups: schedule, target and verification."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .base import Model
from .errors import problem
from .units import (
    Address,
    Bucket,
    Cpu,
    Days,
    Flag,
    HostFolder,
    ImageReference,
    Memory,
    Object,
    SecretName,
    Storage,
    cron_schedule,
)


class S3(Model):
    """A bucket of an S3 server, as the target of backups."""

    endpoint: Address = Field(
        examples=["https://s3.eu-central-1.amazonaws.com"],
        description="Address of the server, as in https://s3.eu-central-1.amazonaws.com.",
    )
    bucket: Bucket = Field(description="Name of an existing bucket.")
    prefix: Object | None = Field(
        examples=["shop-prod"], default=None, description="Prefix of all object names; default is `APP-STACK`."
    )
    region: Object = Field(default="us-east-1", description="Region of the bucket.")
    access_key: SecretName = Field(
        examples=["s3-access-key"], description="Name of the secret with the id of the access key."
    )
    secret_key: SecretName = Field(examples=["s3-secret-key"], description="Name of the secret with the access key.")

    def object_prefix(self, instance: str) -> str:
        """Return the prefix of all object names: `prefix`, or else `instance` (`APP-STACK`)."""
        return self.prefix or instance


class Target(Model):
    """Target of backups. Exactly one of `volume`, `directory` and `s3` must be set."""

    volume: Flag = Field(
        default=False,
        description="true: store backups in a volume on the same platform as the data. They are lost together with it.",
    )
    storage: Storage | None = Field(
        default=None,
        description="Kubernetes, with `volume`: size of the volume; default is twice the size of the volumes of the database or the store.",
    )
    storage_class: Object | None = Field(
        examples=["fast"], default=None, description="Kubernetes, with `volume`: StorageClass of the volume."
    )
    directory: HostFolder | None = Field(
        examples=["/srv/backups"],
        default=None,
        description="Docker: folder of the engine's host, for example a mounted network share.",
    )
    s3: S3 | None = Field(default=None, description="Bucket of an S3 server.")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(map(bool, (self.volume, self.directory, self.s3))) != 1:
            raise problem("exactly one of `volume: true`, `directory` and `s3` is required", "set one of them")
        if not self.volume and (self.storage or self.storage_class):
            raise problem("`storage` and `storage_class` have an effect only with `volume: true`", "remove them")
        return self


class Backup(Model):
    """Backups of the database and of the tiers' volumes, or of a store's volumes: schedule, target and verification. Schedules are in UTC."""

    schedule: Annotated[str, cron_schedule(3)] = Field(
        default="daily",
        validate_default=True,
        description="Schedule of backups of the database or the store: `daily` (03:17), `weekly`, `monthly` or a cron expression.",
    )
    full: Annotated[str, cron_schedule(4)] = Field(
        default="weekly",
        validate_default=True,
        description="Database: schedule of backups of the database and of the tiers' volumes.",
    )
    verify: Annotated[str, cron_schedule(5)] = Field(
        default="monthly",
        validate_default=True,
        description="Schedule of verifications: all backups are read. The last one of the database is also restored into a temporary database and compared.",
    )
    retention: Days = Field(
        default=30,
        validate_default=False,
        description="Age at which backups are deleted, counted from the last successful backup.",
    )
    live: Flag = Field(
        default=False,
        description="Store: true: accept a copy of files that change during the copy. false: such a copy is repeated, and the run fails if the "
        "files never rest. Set it only if the store can read such a copy, as a store of objects or mails can. A database usually can't.",
    )
    key: SecretName = Field(
        default="backup-key",
        description="Name of the secret that encrypts backups. Keep a copy of its value outside of the stack: without it backups can't be read.",
    )
    target: Target = Field(description="Storage of the backups.")
    cpu: Cpu = Field(default=1, validate_default=False, description="Processor limit of the backup workload.")
    memory: Memory = Field(
        default=512 * 2**20, validate_default=False, description="Memory limit of the backup workload."
    )
    image: ImageReference | None = Field(
        default=None, description="Backup image, by digest; default is to build it. `make images` writes this key."
    )

    @property
    def secrets(self) -> dict[str, str]:
        """Secrets of the backups: name → config key that names the secret, such as `target.s3.access_key`."""
        s3 = self.target.s3
        keys = {s3.access_key: "target.s3.access_key", s3.secret_key: "target.s3.secret_key"} if s3 else {}
        return {self.key: "key", **keys}
