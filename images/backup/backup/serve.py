"""What keeps running: metrics of the repository, and, where the platform has nothing for it, the runs at their times."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

from . import repository
from .repository import BackupError, Run

PORT = 9200
FRESH = 60
"""Seconds for which an answer of the repository is good: to ask costs a second of a processor."""
GRACE = timedelta(hours=2)
"""How long after its time a run may take to be on record."""


def times() -> dict[str, str]:
    """Kind of run → when it is due, as cron writes it, in UTC."""
    return json.loads(os.environ.get("BACKUP_TIMES", "{}"))


def overdue(known: Sequence[Run], due: Mapping[str, str], now: datetime) -> dict[str, bool]:
    """Which kinds of runs should be on record by now and are not: since the last that went well, or since it all began.

    One that a clock which was ahead has dated is not the last: nothing would be overdue until then.
    """
    begun = min((run.at for run in known), default=now)
    good = [run for run in known if run.ok and run.at <= now]
    last = {kind: max((run.at for run in good if run.kind == kind), default=begun) for kind in due}
    return {kind: _next(at, last[kind]) + GRACE < now for kind, at in due.items()}


def metrics(known: Sequence[Run] | None, due: Mapping[str, str], now: datetime) -> Iterator[str]:
    """What Prometheus is told, line by line; `known` is None where the repository can't be read."""
    yield f"tiers_backup_repository_readable {int(known is not None)}"
    verified = [run for run in known or () if run.kind == "verify"]
    if verified:  # Before the first there is no verdict, and it is no bad one.
        yield f"tiers_backup_verified {int(verified[-1].ok)}"
    late = overdue(known or (), due, now)
    for kind in due:
        last = next((run for run in reversed(known or ()) if run.ok and run.kind == kind), None)
        of = f'{{kind="{kind}"}}'
        if known is not None:
            yield f"tiers_backup_last_success_timestamp_seconds{of} {last.at.timestamp() if last else 0:.0f}"
            yield f"tiers_backup_overdue{of} {int(late[kind])}"
        if last:
            yield f"tiers_backup_last_size_bytes{of} {last.size}"
            yield f"tiers_backup_last_duration_seconds{of} {last.seconds:g}"


def serve(due: Mapping[str, str]) -> None:
    """Answer /metrics and /health for as long as it lives, and start the runs that are `due`, one at a time."""
    repository.begin()
    if due:
        _schedule(due)
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


class Handler(BaseHTTPRequestHandler):
    """Answers Prometheus, and who asks whether it lives."""

    lock, asked, answer = threading.Lock(), 0.0, ""

    def do_GET(self) -> None:
        text = {"/health": lambda: "ok\n", "/metrics": self._metrics}.get(self.path)
        # Whoever only wants to know whether it lives may have hung up already.
        with suppress(ConnectionError):
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text().encode() if text else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Being asked is no news."""

    def _metrics(self) -> str:
        with Handler.lock:
            if time.monotonic() > Handler.asked + FRESH or not Handler.answer:
                Handler.answer = "".join(f"{line}\n" for line in metrics(_known(), times(), datetime.now(UTC)))
                Handler.asked = time.monotonic()
            return Handler.answer


def _known() -> list[Run] | None:
    try:
        return repository.runs(repository.snapshots())
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        return None


def _schedule(due: Mapping[str, str]) -> None:
    scheduler: Any = import_module("apscheduler.schedulers.background").BackgroundScheduler(
        timezone=UTC,
        executors={"default": {"type": "threadpool", "max_workers": 1}},
        job_defaults={"coalesce": True, "misfire_grace_time": 3600},
    )
    late = overdue(_known() or (), due, datetime.now(UTC))
    for kind, at in due.items():
        # What was due while nothing ran here is made up for.
        at_once = {"next_run_time": datetime.now(UTC)} if late[kind] else {}
        scheduler.add_job(partial(_run, kind), _trigger(at), name=kind, **at_once)
    scheduler.start()


def _run(kind: str) -> None:
    # A process of its own: whatever becomes of it, the next run finds nothing of it.
    subprocess.run([sys.executable, "-m", __package__ or "backup", kind])


def _trigger(at: str) -> Any:
    return import_module("apscheduler.triggers.cron").CronTrigger.from_crontab(at, timezone=UTC)


def _next(at: str, after: datetime) -> datetime:
    return _trigger(at).get_next_fire_time(None, after + timedelta(seconds=1)) or datetime.max.replace(tzinfo=UTC)
