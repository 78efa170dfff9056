"""Steps that install missing programs and services. A step can report whether it is done, and can run again."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

CACHE = Path.home() / ".cache" / "tiers"
LOGS = CACHE / "logs"


class LabError(Exception):
    """Error of a step that can't run on this machine. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Installation of one program, service or image."""

    name: str
    takes: str
    """Approximate duration, as text for people."""
    present: Callable[[], str | None]
    """Function that returns a description if the program is installed, or None."""
    run: Callable[[], None]
    """Function that installs the program."""
    needs: tuple[str, ...] = ()
    """Names of the steps that must be done before this step."""


def sh(*command: str | Path, log: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command and append its output to the file of `log`.

    Raises:
        LabError: the command failed. The message contains the last lines of its output.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    file = LOGS / f"{log}.log"
    with file.open("a") as output:
        words = [str(word) for word in command]
        print(f"$ {' '.join(words)}", file=output, flush=True)
        code = subprocess.call(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd, env=env)
    if code:
        tail = "\n".join(f"    {line}" for line in file.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"`{' '.join(words)}` ended with exit code {code}; the end of {file}:\n{tail}")


def digest(*files: Path) -> str:
    """Return a digest of the names and contents of files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def command_output(*command: str) -> str | None:
    """Return the output of a command, or None if the command is missing or fails."""
    if not shutil.which(command[0]):
        return None
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout.strip() if result.returncode == 0 else None


def doctor(steps: Sequence[Step]) -> bool:
    """Print for each step whether it is done, and return True if all are done."""
    missing = 0
    for step in steps:
        description = step.present()
        missing += description is None
        print(
            f"  {'there  ' if description else 'missing'}  {step.name:<28} {description or f'will be installed, takes {step.takes}'}"
        )
    return not missing


def run_steps(steps: Sequence[Step]) -> None:
    """Run the steps that are not done. A step starts as soon as the steps that it needs are done.

    A lock makes sure that only one clone of the repository at a time runs steps on this machine. If all steps are done, the
    function returns without the lock. Otherwise the function waits for the lock and checks the steps again, because another
    clone may have run them.

    Raises:
        LabError: a step failed. Running steps finish, and no other step starts.
    """
    if _complete(steps):
        return
    with _machine_lock():
        if not _complete(steps):
            _run_in_order(steps)


def _complete(steps: Sequence[Step]) -> bool:
    """Return True if all steps are done. In that case also print a line."""
    complete = all(step.present() for step in steps)
    if complete:
        print("  the lab has nothing to install", file=sys.stderr)
    return complete


@contextmanager
def _machine_lock() -> Generator[None]:
    """Hold the machine-wide lock of the lab, so that two clones do not run the same step twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lab.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  the lab of another clone is running on this machine; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_in_order(steps: Sequence[Step]) -> None:
    by_name = {step.name: step for step in steps}
    order = TopologicalSorter({step.name: set(step.needs) for step in steps})
    order.prepare()
    say = _Progress(len(steps))
    failed: LabError | None = None
    # More workers than processors, because steps mostly wait: for registries, or for another build to finish.
    with ThreadPoolExecutor(max_workers=16) as pool:
        running: dict[Future[None], str] = {}
        while order.is_active() and not (failed and not running):
            if not failed:
                running |= {pool.submit(_run_step, by_name[name], say): name for name in order.get_ready()}
            done, _ = wait(running, timeout=20, return_when=FIRST_COMPLETED)
            if not done:
                say.print_waiting(running.values())
            for future in done:
                name = running.pop(future)
                try:
                    future.result()
                    order.done(name)
                except (LabError, OSError, subprocess.SubprocessError) as error:
                    failed = failed or LabError(f"{name}: {error}")
    if failed:
        raise failed


def _run_step(step: Step, say: "_Progress") -> None:
    if description := step.present():
        say.line(step.name, description)
        return
    say.line(step.name, f"… takes {step.takes}", counts=False)
    started = time.monotonic()
    step.run()
    if step.present() is None:
        raise LabError("the step ended without an error, but its result is missing; run `make lab` again")
    say.line(step.name, f"done in {time.monotonic() - started:.0f} s")


class _Progress:
    """Printer of the steps' progress on standard error."""

    def __init__(self, total: int) -> None:
        self.total, self.finished, self.lock, self.started = total, 0, threading.Lock(), time.monotonic()

    def line(self, name: str, text: str, counts: bool = True) -> None:
        with self.lock:
            self.finished += counts
            print(f"  [{self.finished:>2}/{self.total}] {name:<28} {text}", file=sys.stderr, flush=True)

    def print_waiting(self, names: Iterable[str]) -> None:
        elapsed = time.monotonic() - self.started
        print(f"          … {elapsed:.0f} s: {', '.join(names)}", file=sys.stderr, flush=True)
