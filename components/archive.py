"""Continuous archive of a database cluster, for recovery to any moment (docs/adr/017-going-back-in-time.md)."""

import pulumi

from .config import S3, TierName
from .tier import Description
from .workload import Archive, Image, Probe, Resources, Secret, Workload, Zone

NAME = "vault"
PORT, METRICS_PORT = 9000, 9001
ROOM = 2**30
"""Memory in bytes: rclone holds each upload in memory until it is complete."""


def described(description: Description) -> Archive | None:
    """Return the archive of a database cluster that is backed up to a bucket, or None for any other database."""
    backup = description.environment.size(TierName.DATABASE).backup
    if not backup or not backup.target.s3 or not description.environment.archived:
        return None
    s3 = backup.target.s3
    access, secret, key = (description.secrets[name] for name in (s3.access_key, s3.secret_key, backup.key))
    vault = _vault(s3, access, secret, key, description)
    return Archive(vault=vault, access=access, secret=secret, schedule=backup.schedule, days=backup.retention)


def _vault(s3: S3, access: Secret, secret: Secret, key: Secret, description: Description) -> Workload:
    """Return the archive proxy: rclone, which speaks S3 on both sides and encrypts everything it stores in the bucket.

    The shell puts its secrets into the environment of its process only. The encryption key is passed as rclone obscures it.
    """
    prefix = s3.begins(f"{description.app.name}-{pulumi.get_stack()}")
    env = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENDPOINT": s3.endpoint,
        "RCLONE_CONFIG_STORE_REGION": s3.region,
        "RCLONE_CONFIG_VAULT_TYPE": "crypt",
        "RCLONE_CONFIG_VAULT_REMOTE": f"store:{s3.bucket}/{prefix}-changes",
        # Names stay readable: they carry time and instance, which a search for missing files needs.
        "RCLONE_CONFIG_VAULT_FILENAME_ENCRYPTION": "off",
        "RCLONE_CONFIG_VAULT_DIRECTORY_NAME_ENCRYPTION": "false",
    }
    begin = (
        f'access="$(cat {access.path})" secret="$(cat {secret.path})"',
        'export RCLONE_CONFIG_STORE_ACCESS_KEY_ID="$access" RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="$secret"',
        # rclone reads a list of pairs here: without quotes the comma would separate two incomplete pairs.
        r'export RCLONE_AUTH_KEY="\"$access,$secret\""',
        f'RCLONE_CONFIG_VAULT_PASSWORD="$(rclone obscure - < {key.path})" && export RCLONE_CONFIG_VAULT_PASSWORD',
        f"exec rclone serve s3 vault: --addr :{PORT} --metrics-addr :{METRICS_PORT}",
    )
    return Workload(
        tier=NAME,
        image=Image(
            reference=description.environment.vault, path="environment.vault", pull_secrets=description.pull_secrets
        ),
        resources=Resources(cpu=0.5, memory=ROOM, reserve=0.01),
        command=("sh", "-c", " && ".join(begin)),
        env=tuple(sorted(env.items())),
        secrets=(access, secret, key),
        port=PORT,
        probe=Probe(path="/metrics", port=METRICS_PORT),
        zones=(Zone.DATA, Zone.OUTSIDE),
        egress=True,
        writable=("/tmp",),
        stop_within=60,
    )
