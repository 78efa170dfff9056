"""Runs Pulumi so that a closed terminal, a stop or a killed make ends its update in order, and never in the middle of a write.

The command has a session of its own: the terminal's signals come to the runner, which passes a stop on as Pulumi wants it (an
interrupt cancels in order, a second one at once) and waits for its end. What it prints goes into a file that the runner reads on:
a pipe kills a Go program at its next line once the reader has gone, as in `make up | head`, or with the runner itself.
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
"""Seconds for a cancelled command to end in order; then it is interrupted again."""
HURRY = 10.0
"""Seconds after the second interrupt; then it is killed, and healing settles the rest."""
PERIOD = 0.05
"""Seconds until a line that was printed is handed on."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies, however that happens (Linux only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def undo_when_stopped(name: str) -> None:
    """From here on a stop, once or often, is a failure like any other: what was begun is undone.

    A signal that `nohup` has made the process ignore stays ignored.
    """
    heeded = [number for number in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        for other in heeded:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(f"{name}: it was told to stop ({signal.Signals(number).name})")

    for number in heeded:
        signal.signal(number, stop)


def run(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, copy: Path | None = None
) -> int:
    """Run a command to its end and return its exit code; what it prints goes to `copy` as well.

    Raises:
        FileNotFoundError: the command is not on PATH.
        SystemExit: this process was told to stop meanwhile, and the command has ended; or somebody else has killed it.
        KeyboardInterrupt: likewise, from the keyboard.
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
    """Run a command to its end and return what it printed; otherwise as `run`."""
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
    # At an offset: the command writes at the file's own.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size - start, start)


class _Relay:
    """Hands on what a command has printed so far, to a target that may be gone."""

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
    """Pass stops on to the command, and follow them once it has ended."""
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
        if handler != signal.SIG_IGN:  # As `nohup` has it.
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
