"""Manifests for the continuous archive of a database cluster, with CloudNativePG's Barman plugin. All functions are pure.

The plugin (0.7) runs a sidecar in the pod of each instance. The sidecar sends WAL files and scheduled base backups to an S3 store.
In a Cluster with `bootstrap.recovery` in its spec, the sidecar restores both.

The plugin can't encrypt. The S3 store is therefore the archive proxy in the same namespace, which encrypts all data
(docs/adr/017-going-back-in-time.md).
"""

from collections.abc import Mapping
from typing import Any

from ...model.workload import Archive, Resources
from .objects import Manifest, Scope
from .quantities import resources

PLUGIN = "barman-cloud.cloudnative-pg.io"
API = "barmancloud.cnpg.io/v1"
MAX_UPLOAD = "256MB"
"""Maximum size of an upload with several files, because the archive proxy buffers uploads in memory. One file has up to 1 GB."""
SIDECAR_RESOURCES = Resources(cpu=0.5, memory=256 * 2**20, reserve=0.02)
"""Resource limits of the plugin's sidecar."""


def plugin_entry(name: str) -> Manifest:
    """Return the entry of `plugins` that turns on the archive of a Cluster.

    `name` is the name of the Cluster and of its ObjectStore.
    """
    return {"name": PLUGIN, "isWALArchiver": True, "parameters": {"barmanObjectName": name}}


def external_cluster_entry(name: str) -> Manifest:
    """Return the entry of `externalClusters` with which a new Cluster can restore the archive of the Cluster `name`."""
    return {"name": name, "plugin": {"name": PLUGIN, "parameters": {"barmanObjectName": name, "serverName": name}}}


def store(scope: Scope, name: str, archive: Archive, access: Mapping[str, str], secret: Mapping[str, str]) -> Manifest:
    """Return the ObjectStore: the address and the settings of a Cluster's archive.

    Args:
        scope: names and settings of the environment.
        name: name of the Cluster.
        archive: settings of the archive.
        access: Kubernetes Secret with the id of the archive proxy's access key, as `name` and `key`.
        secret: Kubernetes Secret with the secret part of this access key, as `name` and `key`.
    """
    manifest = scope.object(API, "ObjectStore", name, scope.labels(name, "archive"))
    # Disable the checksums of newer S3 clients: few servers other than Amazon's support them.
    checksum_env = {
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    manifest["spec"] = {
        "configuration": {
            "destinationPath": "s3://wal/",
            "endpointURL": f"http://{archive.proxy.tier}:{archive.proxy.port}",
            "s3Credentials": {"accessKeyId": dict(access), "secretAccessKey": dict(secret)},
            "data": {
                "compression": "gzip",
                "additionalCommandArgs": [f"--max-archive-size={MAX_UPLOAD}"],
                "immediateCheckpoint": True,
                "jobs": 1,
            },
            "wal": {"compression": "gzip"},
        },
        "instanceSidecarConfiguration": {
            "env": [{"name": name, "value": value} for name, value in checksum_env.items()],
            "resources": resources(SIDECAR_RESOURCES),
        },
        "retentionPolicy": f"{archive.days}d",
    }
    return manifest


def scheduled_backup(scope: Scope, name: str, archive: Archive) -> Manifest:
    """Return the ScheduledBackup for base backups. The first one starts at once, because a recovery needs it."""
    manifest = scope.object("postgresql.cnpg.io/v1", "ScheduledBackup", name, scope.labels(name, "archive"))
    manifest["spec"] = {
        "backupOwnerReference": "cluster",
        "cluster": {"name": name},
        "immediate": True,
        "method": "plugin",
        "pluginConfiguration": {"name": PLUGIN},
        # The first field of CloudNativePG's cron expressions is for seconds.
        "schedule": f"0 {archive.schedule}",
    }
    return manifest


def recovery(spec: Mapping[str, Any], archived_cluster: str, moment: str) -> Manifest:
    """Return the spec of a temporary Cluster that restores the archive of another Cluster.

    The temporary Cluster has one instance and no archive. The database's owner gets the current password, even
    if the password was different at `moment`.

    Args:
        spec: spec of the archived Cluster.
        archived_cluster: name of the archived Cluster.
        moment: time to restore to, as a PostgreSQL timestamp in UTC.
    """
    copied_keys = (
        "affinity",
        "imageName",
        "imagePullPolicy",
        "imagePullSecrets",
        "resources",
        "seccompProfile",
        "storage",
    )
    copied = {key: spec[key] for key in copied_keys if key in spec}
    bootstrap: Manifest = {key: spec["bootstrap"]["initdb"][key] for key in ("database", "owner", "secret")}
    bootstrap |= {"source": archived_cluster, "recoveryTarget": {"targetTime": moment}}
    return copied | {
        "bootstrap": {"recovery": bootstrap},
        "enableSuperuserAccess": False,
        "externalClusters": [external_cluster_entry(archived_cluster)],
        "inheritedMetadata": spec.get("inheritedMetadata", {}),
        "instances": 1,
    }
