"""Continuous archive of a database cluster, for point-in-time recovery (docs/adr/017-going-back-in-time.md)."""

from .config import S3
from .context import Description
from .model.services import DATABASE
from .model.workload import Archive, Image, Probe, Resources, Secret, Workload, Zone

NAME = "vault"
PORT, METRICS_PORT = 9000, 9001
MEMORY = 2**30
"""Memory limit of the archive proxy in bytes. rclone buffers each upload in memory until the upload is complete."""


def render(description: Description) -> Archive | None:
    """Return the continuous archive of the database cluster, or None without a cluster or without backups to a bucket."""
    backup = description.environment.tier_settings(DATABASE.name).backup
    if not backup or not backup.target.s3 or not description.environment.archived:
        return None
    s3 = backup.target.s3
    access, secret, key = (description.secrets[name] for name in (s3.access_key, s3.secret_key, backup.key))
    proxy = _proxy(s3, access, secret, key, description)
    return Archive(proxy=proxy, access=access, secret=secret, schedule=backup.schedule, days=backup.retention)


def _proxy(s3: S3, access: Secret, secret: Secret, key: Secret, description: Description) -> Workload:
    """Return the archive proxy: rclone serves the S3 protocol to the database, and stores encrypted objects in the bucket.

    A shell exports the contents of the secret files as environment variables, and then starts rclone. Therefore the
    workload contains no secret values. rclone accepts only obscured keys, so the shell obscures the encryption key.
    """
    prefix = s3.object_prefix(f"{description.app.name}-{description.stack}")
    env = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENDPOINT": s3.endpoint,
        "RCLONE_CONFIG_STORE_REGION": s3.region,
        "RCLONE_CONFIG_VAULT_TYPE": "crypt",
        "RCLONE_CONFIG_VAULT_REMOTE": f"store:{s3.bucket}/{prefix}-changes",
        # Object names stay unencrypted, because the check for missing WAL files reads time and instance from the names.
        "RCLONE_CONFIG_VAULT_FILENAME_ENCRYPTION": "off",
        "RCLONE_CONFIG_VAULT_DIRECTORY_NAME_ENCRYPTION": "false",
    }
    begin = (
        f'access="$(cat {access.path})" secret="$(cat {secret.path})"',
        'export RCLONE_CONFIG_STORE_ACCESS_KEY_ID="$access" RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="$secret"',
        # rclone splits this variable into a list at commas. The quotes make `access,secret` one element.
        r'export RCLONE_AUTH_KEY="\"$access,$secret\""',
        f'RCLONE_CONFIG_VAULT_PASSWORD="$(rclone obscure - < {key.path})" && export RCLONE_CONFIG_VAULT_PASSWORD',
        f"exec rclone serve s3 vault: --addr :{PORT} --metrics-addr :{METRICS_PORT}",
    )
    return Workload(
        tier=NAME,
        image=Image(
            reference=description.environment.vault, path="environment.vault", pull_secrets=description.pull_secrets
        ),
        resources=Resources(cpu=0.5, memory=MEMORY, reserve=0.01),
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
