"""Checks of the live slot: `python -m ci.check STACK` prints a line for each, and exits with 1 if one fails.

A check that needs a missing description of the application is reported as such, never skipped.
"""

import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pulumi import RunError

from components import backup, checkpoint, database, platforms, tier
from components.alerts import CERTIFICATE_DAYS
from components.checkpoint import Checkpoint
from components.config import App, Check, Environment, TierName
from components.platforms import recovery, toolbox
from components.platforms.manifests import Scope
from components.release import Slot

from . import edge
from .described import load, state
from .slo import outputs

PATIENCE = 10
"""Seconds until every process of a gateway has noticed the last switch."""


class NotDescribedError(Exception):
    """The application does not describe what a check needs; the message names the missing key."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """Live slot of a stack, and the checks that run on it."""

    app: App
    environment: Environment
    stack: str
    slot: Slot
    url: str
    known: Checkpoint

    def questions(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield title and function of each check, in order. A function returns the state or raises the reason of a failure."""
        yield "every container is up", self.containers
        yield "the database is ready", self.database
        for name in (TierName.API, TierName.WEB):
            yield f"the {name} is ready", partial(self.ready, name)
        yield "the database has the release's migrations", self.migrations
        if self.environment.size(TierName.DATABASE).backup:
            yield "backups are taken and can be restored", self.backups
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
        counts = platforms.ready(self.app, self.environment, self.stack)
        expected = standing(self.app, self.environment, self.slot, self.known)
        if missing := [*unready(expected, counts)]:
            raise RunError("; ".join(missing))
        return ", ".join(f"{name} {counts[slot, name][0]}" for slot, name in expected)

    def database(self) -> str:
        described = self.app.database
        if not described:
            raise NotDescribedError("app.database")
        if outside := tier.elsewhere(TierName.DATABASE, self.environment):
            try:
                socket.create_connection((outside.host, outside.port), timeout=PATIENCE).close()
            except OSError as error:
                raise RunError(f"{outside.host}:{outside.port} can't be reached from here: {error}") from None
            return f"{outside.host}:{outside.port} takes connections"
        self._execute(TierName.DATABASE, None, database.takes_connections(described))
        return "pg_isready succeeds"

    def ready(self, name: TierName) -> str:
        routes = [route for route in tier.routes(self.app, self.environment) if route.tier == name]
        if not routes:
            raise NotDescribedError(f"app.{name}")
        self._ask({"path": platforms.readiness(routes[0])}, self.slot)
        return f"{routes[0].health}, through the gateway"

    def migrations(self) -> str:
        steps = [(name, service.migrate) for name, service in self.app.services.items() if service.migrate]
        commands = [(name, step.check) for name, step in steps if step.check]
        if not commands:
            raise NotDescribedError("migrate.check of a tier")
        return "; ".join(
            self._execute(name, self.slot, command) or f"the check of {name} succeeds" for name, command in commands
        )

    def backups(self) -> str:
        if problem := misled(self.known, self.slot):
            raise RunError(f"{problem}; run `make up ENV={self.stack}`")
        return platforms.execute(self.app, self.environment, self.stack, backup.NAME, None, (backup.NAME, "status"))

    def quorum(self) -> str:
        return recovery.guarded(self.environment.cluster, self._scope(), tier.REPLICATED)

    def archive(self) -> str:
        return recovery.archived(self.environment.cluster, self._scope(), tier.REPLICATED)

    def answer(self, check: Check) -> str:
        self._ask(check.model_dump(exclude_none=True), None)
        part = [f"with {check.contains!r}"] if check.contains is not None else []
        return ", ".join([f"HTTP {check.status}", *check.headers, *part])

    def no_checks(self) -> str:
        raise NotDescribedError("app.checks")

    def isolation(self) -> str:
        if routes := platforms.ways_in(self.app, self.environment, self.stack, self.slot):
            raise RunError("; ".join(routes))
        return "checked services, routes and policies" if self.environment.kubernetes else "checked ports and networks"

    def certificate(self) -> str:
        gateway, host = reached(self.url)
        parts = urlsplit(gateway)
        return good_until(certificate_at(parts.hostname or "", parts.port or 443, host), CERTIFICATE_DAYS)

    def _scope(self) -> Scope:
        return Scope.of(self.app.name, self.environment.cluster, f"{self.app.name}-{self.stack}")

    def _execute(self, name: TierName, slot: Slot | None, command: tuple[str, ...]) -> str:
        return platforms.execute(self.app, self.environment, self.stack, name, slot, command)

    def _ask(self, wanted: Mapping[str, Any], slot: Slot | None) -> None:
        gateway, host = reached(self.url)
        deadline = time.monotonic() + PATIENCE
        while problem := toolbox.ask(gateway, host, str(slot or ""), wanted):
            if time.monotonic() > deadline:
                raise RunError(problem)
            time.sleep(0.5)


def reached(url: str) -> tuple[str, str]:
    """Return the address to connect to and the Host header. Names below .localhost resolve to this machine, as in browsers."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host.endswith(".localhost"):
        parts = parts._replace(netloc=f"127.0.0.1:{parts.port}" if parts.port else "127.0.0.1")
    return parts.geturl(), host


def certificate_at(address: str, port: int, host: str) -> str:
    """Return the PEM certificate that a server presents for a host.

    Its signature is not verified; browsers do that.
    """
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, port), timeout=PATIENCE) as connection,
        unverified.wrap_socket(connection, server_hostname=host) as client,
    ):
        return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")


def good_until(pem: str, days: int) -> str:
    """Return the date until which a certificate is valid.

    Raises:
        RunError: it expires in fewer than `days` days.
    """
    words = ["openssl", "x509", "-noout", "-enddate", "-checkend", str(days * 86400)]
    done = subprocess.run(words, input=pem, capture_output=True, text=True)
    until = done.stdout.partition("notAfter=")[2].partition("\n")[0]
    if not until:
        raise RunError(f"the gateway's certificate can't be read: {done.stderr.strip()}")
    if done.returncode:
        raise RunError(f"it is good until {until} only; renew it (docs/runbook.md#expired-certificate)")
    return until


def standing(app: App, environment: Environment, live: Slot, known: Checkpoint) -> dict[tuple[str, str], int]:
    """Return (slot or "", tier) → the least number of replicas expected, of tiers described and of tiers deployed."""
    described = [(str(live), str(name)) for name in app.services] + [("", str(name)) for name in environment.data(app)]
    deployed = Counter(
        (entry.labels.get(checkpoint.LABEL_SLOT, ""), str(entry.tier))
        for entry in known.entries
        if entry.custom and entry.role == "tier"
    )
    return {key: max(deployed[key], 1) for key in dict.fromkeys([*described, *deployed]) if key[0] in ("", live)}


def unready(wanted: Mapping[tuple[str, str], int], there: Mapping[tuple[str, str], tuple[int, int]]) -> Iterator[str]:
    """Yield a text for each tier whose replicas are not all up and healthy."""
    for key, least in wanted.items():
        healthy, total = there.get(key, (0, 0))
        if healthy < max(total, least):
            yield f"{'-'.join(filter(None, reversed(key)))}: {healthy} of {max(total, least)} are up and healthy"


def misled(known: Checkpoint, live: Slot) -> str:
    """Return a problem if backups are of another database than the live one, or an empty text."""
    holders = [entry for entry in known.entries if entry.runs and entry.tier == backup.NAME]
    backed_up, live_database = (
        {name: variables.get(name, "") for name in ("DATABASE_NAME", "DATABASE_HOST")}
        for variables in (holders[0].variables if holders else {}, checkpoint.told(known, live))
    )
    if not holders or not live_database["DATABASE_NAME"] or backed_up == live_database:
        return ""
    return "backups are of {}, and what is live is {}".format(
        *(" at ".join(variables.values()) for variables in (backed_up, live_database))
    )


def verdict(question: Callable[[], str]) -> tuple[str, str]:
    """Run a check and return its result and a text for it."""
    try:
        return "ok", question()
    except NotDescribedError as missing:
        return "not described", str(missing)
    except (RunError, OSError) as error:
        return "FAILED", str(error)


def main(stack: str) -> int:
    app, environment = load(stack)
    stack_outputs = outputs(stack)
    live = Live(
        app=app,
        environment=environment,
        stack=stack,
        slot=Slot(stack_outputs["live"]),
        url=stack_outputs["url"],
        known=checkpoint.parse(state(stack)),
    )
    print(f"{stack_outputs['release']}, live on {live.slot} of {stack}, {live.url}")
    failed = 0
    for number, (name, question) in enumerate(live.questions(), 1):
        result, detail = verdict(question)
        failed += result == "FAILED"
        print(f"  {number}  {result:<13}  {name}: {detail}", flush=True)
    return failed


if __name__ == "__main__":
    words = edge.arguments("check STACK", 1, 1)
    edge.end("check", lambda: 1 if main(*words) else 0)
