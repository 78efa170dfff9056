"""Where every change of a replicated database goes as it happens, so that it can be had as it was at any moment (docs/adr/017-going-back-in-time.md)."""

import pulumi

from .config import S3, TierName
from .tier import Description
from .workload import Archive, Image, Probe, Resources, Secret, Workload, Zone

NAME = "vault"
PORT, METRICS_PORT = 9000, 9001
ROOM = 2**30
"""Bytes: it holds what it gets in memory until that is whole."""


def described(description: Description) -> Archive | None:
    """The archive of a database of several instances that is backed up to a bucket; None for all others."""
    wanted = description.environment.size(TierName.DATABASE).backup
    if not wanted or not wanted.target.s3 or not description.environment.archived:
        return None
    s3 = wanted.target.s3
    access, secret, key = (description.secrets[name] for name in (s3.access_key, s3.secret_key, wanted.key))
    vault = _vault(s3, access, secret, key, description)
    return Archive(vault=vault, access=access, secret=secret, schedule=wanted.schedule, days=wanted.retention)


def _vault(s3: S3, access: Secret, secret: Secret, key: Secret, description: Description) -> Workload:
    """rclone, which speaks S3 on both sides and encrypts between them: what passes on is in the bucket as nobody can read it.

    Its secrets are in the environment of its process only, where the shell puts them; the program knows the key by a form of its own.
    """
    prefix = s3.begins(f"{description.app.name}-{pulumi.get_stack()}")
    told = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENDPOINT": s3.endpoint,
        "RCLONE_CONFIG_STORE_REGION": s3.region,
        "RCLONE_CONFIG_VAULT_TYPE": "crypt",
        "RCLONE_CONFIG_VAULT_REMOTE": f"store:{s3.bucket}/{prefix}-changes",
        # Names tell when, and of which instance; who looks for what is missing has to read them.
        "RCLONE_CONFIG_VAULT_FILENAME_ENCRYPTION": "off",
        "RCLONE_CONFIG_VAULT_DIRECTORY_NAME_ENCRYPTION": "false",
    }
    begin = (
        f'access="$(cat {access.path})" secret="$(cat {secret.path})"',
        'export RCLONE_CONFIG_STORE_ACCESS_KEY_ID="$access" RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="$secret"',
        # A list of pairs: without the quotes it would be two that nobody is asked for.
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
        env=tuple(sorted(told.items())),
        secrets=(access, secret, key),
        port=PORT,
        probe=Probe(path="/metrics", port=METRICS_PORT),
        zones=(Zone.DATA, Zone.OUTSIDE),
        egress=True,
        writable=("/tmp",),
        stop_within=60,
    )
