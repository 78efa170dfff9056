"""Scheduled jobs of the live release: last runs, next due times, and problems. All functions are pure, except for the function that the caller passes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from components.config import grammar
from components.model.names import LABEL_SLOT, ROLE_JOB
from components.model.schedules import Schedule
from components.platforms import JobRun
from components.release import journal
from components.release.checkpoint import Checkpoint, observe

OVERDUE = timedelta(minutes=10)
"""Time after a due time without a run, from which on a job is overdue."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """A scheduled job of the live release."""

    name: str
    cron: str
    schedule: Schedule
    last: JobRun | None
    """Last run that the platform still knows; None if there is none."""

    def describe(self, now: datetime) -> str:
        """Return the schedule, the last run and the next due time as one line."""
        next_time = self.schedule.next_after(now)
        following = f"next {format_time(next_time)}" if next_time else "no next due time"
        return f"{self.name:<16} {self.cron} {self.schedule.zone}; {self._last()}; {following}"

    def _last(self) -> str:
        if not self.last:
            return "no run yet"
        if self.last.seconds is None:
            return f"last {format_time(self.last.due)}, running or interrupted"
        return f"last {format_time(self.last.due)}, exit code {self.last.code} after {self.last.seconds:g} s"

    def problem(self, now: datetime, since: datetime) -> str:
        """Return what is wrong with the job, or an empty text: its last run failed, or a due time has no run.

        Args:
            now: the current time.
            since: time of the last switch. Due times before it belong to another release.
        """
        if self.last and self.last.code:
            return f"the job {self.name} failed at {format_time(self.last.due)} with exit code {self.last.code}; see `make logs SERVICE=…`, or run it again with `make run JOB={self.name}`"
        is_running = self.last is not None and self.last.seconds is None
        due = self.schedule.next_after(max(since, self.last.due) if self.last else since)
        if not is_running and due and due + OVERDUE < now:
            return f"the job {self.name} was due at {format_time(due)}, but did not run; see `make status`"
        return ""


def live_jobs(checkpoint: Checkpoint, read_runs: Callable[[], Sequence[JobRun]]) -> list[JobStatus]:
    """Return the scheduled jobs of the live release, by name.

    Args:
        checkpoint: checkpoint of the stack.
        read_runs: function that returns the runs that the platform knows (`Inspector.job_runs`). It is called only if there is a job.
    """
    live = observe(checkpoint).live
    jobs = [
        entry.job
        for entry in checkpoint.entries
        if entry.custom and entry.role == ROLE_JOB and entry.labels.get(LABEL_SLOT) == live
    ]
    last = {run.job: run for run in read_runs()} if jobs else {}
    return [
        JobStatus(name=name, cron=cron, schedule=grammar.schedule(cron, zone), last=last.get(name))
        for name, cron, zone in sorted(jobs)
    ]


def problems(jobs: Iterable[JobStatus], checkpoint: Checkpoint, now: datetime) -> list[str]:
    """Return a text for each job of the live release that failed or is overdue."""
    switched = _last_switch(journal.entries(checkpoint), now)
    return [problem for job in jobs if (problem := job.problem(now, switched))]


def _last_switch(switches: Sequence[Mapping[str, object]], now: datetime) -> datetime:
    """Return the time of the last switch. Without a switch in the journal, return `now`, so that no job counts as overdue."""
    last = str(switches[-1]["at"]) if switches else ""
    return datetime.fromisoformat(last).astimezone(UTC) if last else now


def format_time(moment: datetime) -> str:
    """Return a time in UTC, such as `2026-12-01 03:15 UTC`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
