"""Checks of the live slot: `python -m ci.check STACK` prints a line for each check. The exit code is 1 if a check fails.

A check needs keys of the configuration. If a key is not set, the check is skipped, and its line says "not described".
"""

import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pulumi import RunError

from components import backup, database, platforms, rendering
from components.config import App, Check, Environment
from components.model.names import SERVICE_ROLES, store_backup
from components.model.services import DATABASE
from components.observability.alerts import CERTIFICATE_DAYS
from components.platforms import toolbox
from components.release import checkpoint
from components.release.checkpoint import Checkpoint
from components.release.planner import Slot

from . import command_line, scheduled_jobs
from .pulumi_stack import load, state
from .slo import outputs

PATIENCE = 10
"""Seconds for which a failing request is repeated, because a gateway needs time to apply a switch.

It is also the timeout of a connection attempt.
"""


class NotDescribedError(Exception):
    """Raised if the configuration does not set the key that a check needs. The message is the path of the key."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """Live slot of a stack, and the checks that run on it."""

    app: App
    environment: Environment
    stack: str
    slot: Slot
    url: str
    checkpoint_state: Checkpoint

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield the title and the function of each check.

        The function returns a result text, or raises an error if the check fails.
        """
        yield "every container is up", self.containers
        yield "the database is ready", self.database
        for record in self.app.catalogue.routed:
            yield f"the {record.name} is ready", partial(self.ready, record.name)
        yield "the database has the release's migrations", self.migrations
        if self.app.jobs:
            yield "scheduled jobs run and succeed", self.jobs
        if self.environment.tier_settings(DATABASE.name).backup:
            yield "backups are taken and can be restored", self.backups
        for store, settings in self.app.stores.items():
            if settings.volumes and self.environment.backups:
                yield f"backups of {store} are taken and can be read", partial(self.store_backups, store)
        if self.environment.pooled(self.app):
            yield "a failover needs a quorum", self.quorum
        if self.environment.archived:
            yield "every change of the database is archived", self.archive
        for check in self.app.checks:
            yield f"{check.path} answers as expected", partial(self.answer, check)
        if not self.app.checks:
            yield "the application answers as expected", self.no_checks
        yield "only the gateway can be reached", self.isolation
        if self.url.startswith("https:"):
            yield f"the certificate is valid for {CERTIFICATE_DAYS} more days", self.certificate

    def containers(self) -> str:
        counts = self._inspector.replica_counts()
        expected = expected_replicas(self.app, self.environment, self.slot, self.checkpoint_state)
        if missing := [*missing_replicas(expected, counts)]:
            raise RunError("; ".join(missing))
        return ", ".join(f"{name} {counts[slot, name][0]}" for slot, name in expected)

    def database(self) -> str:
        settings = self.app.database
        if not settings:
            raise NotDescribedError("app.database")
        if external := rendering.external_service(DATABASE.name, self.environment):
            try:
                socket.create_connection((external.host, external.port), timeout=PATIENCE).close()
            except OSError as error:
                raise RunError(
                    f"{external.host}:{external.port} can't be reached from this machine: {error}; start the server, or correct environment.tiers.database.external"
                ) from None
            return f"{external.host}:{external.port} takes connections"
        self._execute(DATABASE.name, None, database.readiness_command(settings))
        return "pg_isready succeeds"

    def ready(self, name: str) -> str:
        routes = [route for route in rendering.render_routes(self.app, self.environment) if route.tier == name]
        if not routes:
            raise NotDescribedError(f"app.{name}")
        self._check_response(
            platforms.route_url(self.url, routes[0]), {"path": platforms.readiness(routes[0])}, self.slot
        )
        return f"{routes[0].health}, through the gateway"

    def migrations(self) -> str:
        steps = [(name, service.migrate) for name, service in self.app.slot_services.items() if service.migrate]
        commands = [(name, step.check) for name, step in steps if step.check]
        if not commands:
            raise NotDescribedError("migrate.check of a tier")
        return "; ".join(
            self._execute(name, self.slot, command) or f"the check of {name} succeeds" for name, command in commands
        )

    def jobs(self) -> str:
        jobs = scheduled_jobs.live_jobs(self.checkpoint_state, self._inspector.job_runs)
        if wrong := scheduled_jobs.problems(jobs, self.checkpoint_state, datetime.now(UTC)):
            raise RunError("; ".join(wrong))
        return ", ".join(job.name for job in jobs) or "the live release has none"

    def backups(self) -> str:
        if problem := backup_problem(self.checkpoint_state, self.slot):
            raise RunError(f"{problem}; run `make up ENV={self.stack}`")
        return self._inspector.execute(backup.NAME, None, (backup.NAME, "status"))

    def store_backups(self, store: str) -> str:
        if store not in self.environment.backups:
            raise NotDescribedError(f"environment.tiers.{store}.backup")
        return self._inspector.execute(store_backup(store), None, (backup.NAME, "status"))

    def quorum(self) -> str:
        return self._cluster_inspector.check_quorum(rendering.REPLICATED)

    def archive(self) -> str:
        return self._cluster_inspector.check_archive(rendering.REPLICATED)

    def answer(self, check: Check) -> str:
        self._check_response(self.url, check.model_dump(exclude_none=True), None)
        body = [f"with {check.contains!r}"] if check.contains is not None else []
        return ", ".join([f"HTTP {check.status}", *check.headers, *body])

    def no_checks(self) -> str:
        raise NotDescribedError("app.checks")

    def isolation(self) -> str:
        inspector = self._inspector
        if routes := inspector.unexpected_routes(self.app, self.slot):
            raise RunError("; ".join(routes))
        return f"checked {inspector.checked_objects}"

    def certificate(self) -> str:
        return ", ".join(certificate_expiry(url) for url in (self.url, *self.environment.urls(self.app).values()))

    @property
    def _inspector(self) -> platforms.Inspector:
        return platforms.inspector(self.app, self.environment, self.stack)

    @property
    def _cluster_inspector(self) -> platforms.InspectsClusters:
        return platforms.cluster_inspector(self.app, self.environment, self.stack)

    def _execute(self, name: str, slot: Slot | None, command: tuple[str, ...]) -> str:
        return self._inspector.execute(name, slot, command)

    def _check_response(self, url: str, expected: Mapping[str, Any], slot: Slot | None) -> None:
        gateway, host = connection_target(url)
        deadline = time.monotonic() + PATIENCE
        while problem := toolbox.response_problem(gateway, host, str(slot or ""), expected):
            if time.monotonic() > deadline:
                raise RunError(problem)
            time.sleep(0.5)


def connection_target(url: str) -> tuple[str, str]:
    """Return the URL to connect to, and the value of the header Host: the host with its port, as browsers send it.

    For a host such as `board.localhost` the URL contains 127.0.0.1, because not every resolver knows `.localhost` hosts.
    """
    parts = urlsplit(url)
    # With TLS the value is also the name in the certificate, which has no port.
    host = parts.netloc if parts.scheme == "http" else parts.hostname or ""
    if (parts.hostname or "").endswith(".localhost"):
        parts = parts._replace(netloc=f"127.0.0.1:{parts.port}" if parts.port else "127.0.0.1")
    return parts.geturl(), host


def certificate_expiry(url: str) -> str:
    """Return the expiry date of the certificate with which the gateway answers at an address.

    Raises:
        RunError: the certificate expires soon, or can't be read.
    """
    gateway, host = connection_target(url)
    parts = urlsplit(gateway)
    return check_expiry(fetch_certificate(parts.hostname or "", parts.port or 443, host), CERTIFICATE_DAYS)


def fetch_certificate(address: str, port: int, host: str) -> str:
    """Return a server's certificate for the host name `host`, as PEM. The certificate is not verified."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, port), timeout=PATIENCE) as connection,
        unverified.wrap_socket(connection, server_hostname=host) as client,
    ):
        return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")


def check_expiry(pem: str, days: int) -> str:
    """Return the expiry date of a certificate.

    Raises:
        RunError: the certificate expires in fewer than `days` days, or can't be read.
    """
    words = ["openssl", "x509", "-noout", "-enddate", "-checkend", str(days * 86400)]
    done = subprocess.run(words, input=pem, capture_output=True, text=True)
    until = done.stdout.partition("notAfter=")[2].partition("\n")[0]
    if not until:
        raise RunError(f"the gateway's certificate can't be read: {done.stderr.strip()}")
    if done.returncode:
        raise RunError(
            f"the certificate expires on {until}; renew the certificate (docs/runbook.md#expired-certificate)"
        )
    return until


def expected_replicas(
    app: App, environment: Environment, live: Slot, checkpoint_state: Checkpoint
) -> dict[tuple[str, str], int]:
    """Return the minimum number of replicas of each tier in the live slot, and of each shared tier.

    The result includes configured tiers and deployed tiers. The keys are (slot, tier), or ("", tier) for a shared tier.
    """
    configured = [(str(live), str(name)) for name in app.slot_services] + [
        ("", str(name)) for name in environment.data(app)
    ]
    deployed = Counter(
        (entry.labels.get(checkpoint.LABEL_SLOT, ""), str(entry.tier))
        for entry in checkpoint_state.entries
        if entry.custom and entry.role in SERVICE_ROLES
    )
    return {key: max(deployed[key], 1) for key in dict.fromkeys([*configured, *deployed]) if key[0] in ("", live)}


def missing_replicas(
    expected: Mapping[tuple[str, str], int], counts: Mapping[tuple[str, str], tuple[int, int]]
) -> Iterator[str]:
    """Yield an error text for each tier with an unhealthy replica, or with fewer healthy replicas than expected.

    Args:
        expected: minimum number of replicas by slot and tier.
        counts: healthy and total number of replicas by slot and tier.
    """
    for key, minimum in expected.items():
        healthy, total = counts.get(key, (0, 0))
        if healthy < max(total, minimum):
            yield f"{'-'.join(filter(None, reversed(key)))}: {healthy} of {max(total, minimum)} are up and healthy"


def backup_problem(checkpoint_state: Checkpoint, live: Slot) -> str:
    """Return an error text if the backed-up database is not the live database, otherwise an empty text."""
    backup_entries = [entry for entry in checkpoint_state.entries if entry.runs and entry.tier == backup.NAME]
    backed_up, live_database = (
        {name: variables.get(name, "") for name in ("DATABASE_NAME", "DATABASE_HOST")}
        for variables in (
            backup_entries[0].variables if backup_entries else {},
            checkpoint.database_env(checkpoint_state, live),
        )
    )
    if not backup_entries or not live_database["DATABASE_NAME"] or backed_up == live_database:
        return ""
    return "the backups are of database {}, but the live database is {}".format(
        *(" at ".join(variables.values()) for variables in (backed_up, live_database))
    )


def run_check(check: Callable[[], str]) -> tuple[str, str]:
    """Run a check. Return its result (ok, not described or FAILED), and its text or error message."""
    try:
        return "ok", check()
    except NotDescribedError as error:
        return "not described", str(error)
    except (RunError, OSError) as error:
        return "FAILED", str(error)


def main(stack: str) -> int:
    """Run all checks of a stack, and return the number of failed checks."""
    app, environment = load(stack)
    stack_outputs = outputs(stack)
    live = Live(
        app=app,
        environment=environment,
        stack=stack,
        slot=Slot(stack_outputs["live"]),
        url=stack_outputs["url"],
        checkpoint_state=checkpoint.parse(state(stack)),
    )
    print(f"{stack_outputs['release']}, live on {live.slot} of {stack}, {live.url}")
    failed = 0
    for number, (name, check) in enumerate(live.checks(), 1):
        result, detail = run_check(check)
        failed += result == "FAILED"
        print(f"  {number}  {result:<13}  {name}: {detail}", flush=True)
    return failed


if __name__ == "__main__":
    words = command_line.arguments("check STACK", 1, 1)
    command_line.run_and_exit("check", lambda: 1 if main(*words) else 0)
