"""Long-running process of the backup container: metrics of the repository, and scheduled runs.

Scheduled runs are started only if the platform has no scheduler (Docker).
"""

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
METRICS_LIFETIME = 60
"""Seconds until metrics are read from the repository again. Reading takes one second of CPU time."""
GRACE_PERIOD = timedelta(hours=2)
"""Time from the scheduled start of a run until the run is overdue."""


def schedules() -> dict[str, str]:
    """Return the schedule of each kind of run, as a cron expression in UTC."""
    return json.loads(os.environ.get("BACKUP_TIMES", "{}"))


def overdue(history: Sequence[Run], schedules: Mapping[str, str], now: datetime) -> dict[str, bool]:
    """Return each kind of run, with True if a run of this kind is overdue.

    A run is overdue if the schedule required one after the last successful run, or after the first recorded run if none succeeded.
    Runs with a time in the future are not counted as the last run: a wrong clock must not hide that a run is overdue.
    """
    first = min((run.time for run in history), default=now)
    successful = [run for run in history if run.ok and run.time <= now]
    last = {kind: max((run.time for run in successful if run.kind == kind), default=first) for kind in schedules}
    return {kind: _next_time(schedule, last[kind]) + GRACE_PERIOD < now for kind, schedule in schedules.items()}


def metrics(history: Sequence[Run] | None, schedules: Mapping[str, str], now: datetime) -> Iterator[str]:
    """Yield the metrics as lines of the Prometheus text format.

    Args:
        history: all recorded runs, the oldest first; None if the repository can't be read.
        schedules: cron expression of each kind of run.
        now: the time of the metrics.
    """
    yield f"tiers_backup_repository_readable {int(history is not None)}"
    verifications = [run for run in history or () if run.kind == "verify"]
    if verifications:  # Before the first verification the metric is absent. A value of 0 would fire an alert.
        yield f"tiers_backup_verified {int(verifications[-1].ok)}"
    late = overdue(history or (), schedules, now)
    for kind in schedules:
        last = next((run for run in reversed(history or ()) if run.ok and run.kind == kind), None)
        label = f'{{kind="{kind}"}}'
        if history is not None:
            yield f"tiers_backup_last_success_timestamp_seconds{label} {last.time.timestamp() if last else 0:.0f}"
            yield f"tiers_backup_overdue{label} {int(late[kind])}"
        if last:
            yield f"tiers_backup_last_size_bytes{label} {last.size}"
            yield f"tiers_backup_last_duration_seconds{label} {last.seconds:g}"


def serve(schedules: Mapping[str, str]) -> None:
    """Serve /metrics and /health until the process ends. Start the runs in `schedules`, one at a time."""
    repository.begin()
    if schedules:
        _schedule(schedules)
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


class Handler(BaseHTTPRequestHandler):
    """HTTP handler of metrics and of the health check."""

    lock, updated_at, text = threading.Lock(), 0.0, ""

    def do_GET(self) -> None:
        page = {"/health": lambda: "ok\n", "/metrics": self._metrics}.get(self.path)
        # The client of a health check may close the connection before the end of the response.
        with suppress(ConnectionError):
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page().encode() if page else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""

    def _metrics(self) -> str:
        with Handler.lock:
            if time.monotonic() > Handler.updated_at + METRICS_LIFETIME or not Handler.text:
                Handler.text = "".join(f"{line}\n" for line in metrics(_history(), schedules(), datetime.now(UTC)))
                Handler.updated_at = time.monotonic()
            return Handler.text


def _history() -> list[Run] | None:
    """Return all recorded runs, or None if the repository can't be read."""
    try:
        return repository.runs(repository.snapshots())
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        return None


def _schedule(schedules: Mapping[str, str]) -> None:
    scheduler: Any = import_module("apscheduler.schedulers.background").BackgroundScheduler(
        timezone=UTC,
        executors={"default": {"type": "threadpool", "max_workers": 1}},
        job_defaults={"coalesce": True, "misfire_grace_time": 3600},
    )
    late = overdue(_history() or (), schedules, datetime.now(UTC))
    for kind, schedule in schedules.items():
        # Start overdue runs now, because they were missed while the container did not run.
        start_now = {"next_run_time": datetime.now(UTC)} if late[kind] else {}
        scheduler.add_job(partial(_run, kind), _trigger(schedule), name=kind, **start_now)
    scheduler.start()


def _run(kind: str) -> None:
    # Use a new process for each run, so that a failed run leaves nothing in this process.
    subprocess.run([sys.executable, "-m", __package__ or "backup", kind])


def _trigger(schedule: str) -> Any:
    return import_module("apscheduler.triggers.cron").CronTrigger.from_crontab(schedule, timezone=UTC)


def _next_time(schedule: str, after: datetime) -> datetime:
    """Return the first time of a schedule that is later than `after`."""
    return _trigger(schedule).get_next_fire_time(None, after + timedelta(seconds=1)) or datetime.max.replace(tzinfo=UTC)
