"""Schedules of jobs: expanded cron expressions in a time zone. All functions are pure, except for reading the time zone database."""

import zoneinfo
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path

SEARCHED_DAYS = 366 * 5
"""Number of days in which the next due time is searched."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Due times of a job: minutes, hours, days and months in a time zone.

    Example:
        every_noon = Schedule(minutes=(0,), hours=(12,), days=tuple(range(1, 32)), months=tuple(range(1, 13)), weekdays=tuple(range(7)), zone="UTC")
    """

    minutes: Sequence[int]
    hours: Sequence[int]
    days: Sequence[int]
    months: Sequence[int]
    weekdays: Sequence[int]
    """Days of the week; Monday is 0."""
    zone: str
    """Name of the time zone, such as `Europe/Berlin`."""

    @classmethod
    def from_times(cls, times: Sequence[Collection[int]], zone: str) -> "Schedule":
        """Return the schedule with the times of the five fields of a cron expression."""
        minutes, hours, days, months, weekdays = (tuple(sorted(field)) for field in times)
        return cls(minutes=minutes, hours=hours, days=days, months=months, weekdays=weekdays, zone=zone)

    def is_due(self, moment: datetime) -> bool:
        """Return whether the minute of `moment` is a due time."""
        return self._is_local_time(moment.astimezone(zoneinfo.ZoneInfo(self.zone)))

    def _is_local_day(self, local: datetime) -> bool:
        return local.day in self.days and local.month in self.months and local.weekday() in self.weekdays

    def _is_local_time(self, local: datetime) -> bool:
        return self._is_local_day(local) and local.hour in self.hours and local.minute in self.minutes

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first due time after `moment`, in UTC, or None if there is none within `SEARCHED_DAYS` days.

        Compare every minute of the days that match, because a change to or from summer time skips or repeats local times.
        """
        zone, minute = zoneinfo.ZoneInfo(self.zone), moment.astimezone(UTC).replace(second=0, microsecond=0)
        end = minute + timedelta(days=SEARCHED_DAYS)
        while minute < end:
            minute += timedelta(minutes=1)
            local = minute.astimezone(zone)
            if self._is_local_time(local):
                return minute
            if not self._is_local_day(local):
                # Skip to a time before the next local midnight. Days have 23 to 25 hours.
                minute += timedelta(minutes=max(0, (23 - local.hour) * 60 - 61))
        return None


@cache
def posix_rule(zone: str) -> str:
    """Return the rule of a time zone in POSIX format, such as `CET-1CEST,M3.5.0,M10.5.0/3`, from the footer of its TZif file (RFC 8536, 3.3).

    Programs with this rule in TZ need no time zone database.

    Raises:
        LookupError: the database has no such time zone.
        OSError: the database has no file of this time zone.
        ValueError: the name is no name of a time zone, or the file has no rule.
    """
    zoneinfo.ZoneInfo(zone)
    paths = [Path(folder, zone) for folder in zoneinfo.TZPATH]
    found = next((path.read_bytes() for path in paths if path.is_file()), None)
    content = found if found is not None else resources.files("tzdata").joinpath("zoneinfo", zone).read_bytes()
    rule = content.rsplit(b"\n", 2)[1].decode("ascii")
    if not rule:
        raise ValueError(f"the time zone {zone} has no rule for the future")
    return rule
