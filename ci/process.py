"""Runner of Pulumi that ends its update in order when the terminal closes, or when make is stopped or killed.

The command gets its own session, so the terminal's signals reach only the runner. The runner forwards a stop as an
interrupt (the first cancels in order, a second one at once) and waits for the command's end. The command prints into
a file that the runner reads. A pipe would kill a Go program at its next line once the reader has gone, as in `make up
| head`, or with the runner itself.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import IO, TextIO

PATIENCE = 60.0
"""Seconds for an interrupted command to end in order, before it is interrupted again."""
HURRY = 10.0
"""Seconds after the second interrupt until the command is killed. Healing then cleans up."""
PERIOD = 0.05
"""Seconds between two reads of the command's output."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int) -> None:
    """Make the kernel send this process a signal when its parent dies (Linux only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def undo_when_stopped(name: str) -> None:
    """Turn stop signals from here on into an error, so that `finally` blocks undo what was begun.

    Further stops are ignored. A signal that `nohup` has made the process ignore stays ignored.
    """
    handled = [number for number in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(f"{name}: it was told to stop ({signal.Signals(number).name})")

    for number in handled:
        signal.signal(number, stop)


def run(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, copy: Path | None = None
) -> int:
    """Run a command to its end and return its exit code. Its output is also written to `copy`.

    Raises:
        FileNotFoundError: the command is not on PATH.
        SystemExit: this process was stopped meanwhile and the command has ended, or the command was killed from
            outside.
        KeyboardInterrupt: the user interrupted this process, and the command has ended.
    """
    sys.stdout.flush()
    with TemporaryFile() as out, TemporaryFile() as err, _opened(copy) as sink:
        child = _begin(words, cwd, env, out, err)
        relays = [_Relay(out, sys.__stdout__, sink), _Relay(err, sys.__stderr__, sink)]
        with _signals_passed_on(child):
            try:
                while child.poll() is None:
                    time.sleep(PERIOD)
                    for relay in relays:
                        relay.move()
            finally:
                for relay in relays:
                    relay.move()
    if child.returncode < 0:
        number = signal.Signals(-child.returncode).name
        raise SystemExit(f"{words[0]} was killed ({number}); run this again: what it was doing is settled first")
    return child.returncode


def capture(words: Sequence[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output. It raises the same errors as `run`."""
    with TemporaryFile() as out, TemporaryFile() as err:
        child = _begin(words, cwd, None, out, err)
        with _signals_passed_on(child):
            code = child.wait()
        texts = [_read(file).decode(errors="replace") for file in (out, err)]
    return subprocess.CompletedProcess(words, code, *texts)


def _begin(
    words: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None, out: IO[bytes], err: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        preexec_fn=lambda: end_with_parent(signal.SIGINT),
    )  # fmt: skip


def _read(file: IO[bytes], start: int = 0) -> bytes:
    # Read at an offset of its own, because the command writes at the file's offset.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size - start, start)


class _Relay:
    """Copies the output of a command to a target that may have been closed."""

    def __init__(self, source: IO[bytes], target: TextIO | None, copy: IO[bytes] | None) -> None:
        self.source, self.target, self.copy, self.moved = source, target, copy, 0

    def move(self) -> None:
        text = _read(self.source, self.moved)
        self.moved += len(text)
        if self.copy:
            with suppress(OSError):
                self.copy.write(text)
        if self.target and text:
            try:
                _write(self.target.fileno(), text)
            except OSError:
                self.target = None


@contextmanager
def _signals_passed_on(child: subprocess.Popen[bytes]) -> Generator[None]:
    """Forward stop signals to the command during the block, and obey them once it has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    timers: list[threading.Timer] = []

    def interrupt() -> None:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        interrupt()
        if len(received) == 1:
            timers.extend((threading.Timer(PATIENCE, interrupt), threading.Timer(PATIENCE + HURRY, kill)))
            for timer in timers:
                timer.daemon = True
                timer.start()

    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # `nohup` ignores it.
            signal.signal(number, pass_on)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(f"it was told to stop ({signal.Signals(received[0]).name}), and has ended what it had begun")


@contextmanager
def _opened(file: Path | None) -> Generator[IO[bytes] | None]:
    if not file:
        yield None
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        yield opened


def _write(target: int, text: bytes) -> None:
    while text:
        text = text[os.write(target, text) :]
