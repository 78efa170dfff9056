"""Program that runs a scheduled job at its due times on an engine, and the results that it writes. All functions are pure.

A shell of BusyBox (`programs`) runs the program in the container of the job. The volume `job-state` has a file with the live slot, and a folder
for each job.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from ...model.schedules import Schedule, posix_rule
from ...model.workload import Job
from ..base import JobRun, SlotTarget
from . import programs

FOLDER = "/.tiers-jobs"
"""Folder of the volume with the live slot and the state of jobs, in the containers of jobs. It hides no file of an application."""
LIVE_FILE = f"{FOLDER}/live"
LIVE_OBJECT = "job-slot"
"""Name of the container that writes the live slot into the volume."""
KEPT_RUNS = 20
"""Number of runs of which a job keeps the results."""
ENDS_WITHIN = 24 * 3600
"""Maximum time in seconds that a container of a job gets to finish a run."""

RUNNER = """\
live=$1 folder=$2 slot=$3 late=$4 overlaps=$5 retries=$6 kept=$7 zone=$8 minutes=$9; shift 9
hours=$1 days=$2 months=$3 weekdays=$4; shift 4
box=$0 stopping=
trap 'stopping=yes' TERM INT
now() { "$box" date +%s; }
contains() { case " $1 " in *" $2 "*) return 0; esac; return 1; }
is_due() {
  set -- $(TZ=$zone "$box" date -d "@$1" '+%M %H %d %m %u')
  contains "$minutes" "$1" && contains "$hours" "$2" && contains "$days" "$3" && contains "$months" "$4" && contains "$weekdays" "$5"
}
write() { echo "$2" > "$1.new" && "$box" mv "$1.new" "$1"; }
is_busy() {
  for run in "$folder"/[0-9]*; do
    [ -e "$run/alive" ] && [ ! -e "$run/end" ] && [ $(($(now) - $("$box" cat "$run/alive"))) -lt 30 ] && return 0
  done
  return 1
}
run() {
  run=$folder/$1; shift
  write "$run/begin" "$RELEASE $(now)"
  tries=0
  while :; do
    "$@" & command=$!
    while kill -0 $command 2>/dev/null; do write "$run/alive" "$(now)"; "$box" sleep 1; done
    wait $command; code=$?
    [ $code = 0 ] || [ $tries -ge $retries ] && break
    tries=$((tries + 1)); "$box" sleep 10
  done
  write "$run/end" "$code $(now)"
}
forget() { while [ $# -gt $kept ]; do "$box" rm -rf "$1"; shift; done; }
"$box" mkdir -p "$folder" || {
  echo "the volume of jobs can't be written: the image environment.docker.busybox must have a folder /tmp with the mode 1777"; exit 1
}
[ -e "$folder/last" ] || write "$folder/last" $(($(now) / 60 * 60))
while [ -z "$stopping" ]; do
  if [ "$("$box" cat "$live" 2>/dev/null)" = "$slot" ]; then
    time=$(now); minute=$((time / 60 * 60)); last=$("$box" cat "$folder/last"); due=$minute
    while [ $due -gt $last ] && [ $due -ge $((time - late)) ] && ! is_due $due; do due=$((due - 60)); done
    if [ $due -gt $last ] && [ $due -ge $((time - late)) ] && { [ $overlaps = yes ] || ! is_busy; } && "$box" mkdir "$folder/$due" 2>/dev/null; then
      echo "run of $(TZ=$zone "$box" date -d "@$due" '+%Y-%m-%d %H:%M %Z')"
      run $due "$@" &
      forget "$folder"/[0-9]*
    fi
    [ $minute -gt $last ] && write "$folder/last" $minute
  fi
  "$box" sleep 1 & wait $!
done
wait
exit 0"""
"""Program of a job's container. Its arguments are data, and the command of the job follows them.

A new folder claims a due time, so a due time runs once even if two slots count themselves live at the moment of a switch. A stopped container
finishes its run. Every second the program compares the live slot and the time.
"""


def runner(job: Job, target: SlotTarget, user: int) -> list[str]:
    """Return the beginning of the command line that runs a job at its due times while its slot is live."""
    folder = f"{FOLDER}/{job.name}-{user}"
    overlaps = "yes" if job.overlaps else "no"
    numbers = [str(number) for number in (job.late, overlaps, job.retries, KEPT_RUNS)]
    return [
        *(programs.BUSYBOX, "sh", "-c", RUNNER, programs.BUSYBOX),
        *(LIVE_FILE, folder, str(target.slot), *numbers, posix_rule(job.schedule.zone), *_fields(job.schedule)),
        *programs.limit(job.timeout),
    ]


def _fields(schedule: Schedule) -> list[str]:
    """Return the times of a schedule as the program `date` prints them: two digits, and 1 to 7 for Monday to Sunday."""
    two_digits = (schedule.minutes, schedule.hours, schedule.days, schedule.months)
    fields = [" ".join(f"{number:02}" for number in numbers) for numbers in two_digits]
    return [*fields, " ".join(str(day + 1) for day in schedule.weekdays)]


def parse_runs(files: Mapping[str, str]) -> list[JobRun]:
    """Return the runs of all jobs, oldest first.

    Args:
        files: files in the volume: path → text.
    """
    paths = [match for path in files if (match := re.fullmatch(r"(.+)-\d+/(\d+)/begin", path))]
    runs = [
        _run(match[1], int(match[2]), files[match[0]], files.get(match[0].removesuffix("begin") + "end"))
        for match in paths
    ]
    return sorted(runs, key=lambda run: run.due)


def _run(job: str, due: int, begin: str, end: str | None) -> JobRun:
    code, _, ended = (end or "").partition(" ")
    release, _, began = begin.partition(" ")
    return JobRun(
        job=job,
        due=datetime.fromtimestamp(due, UTC),
        release=release,
        code=int(code) if code else None,
        seconds=float(int(ended) - int(began)) if ended else None,
    )
