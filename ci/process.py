"""Runner of commands such as Pulumi. An update ends cleanly if the terminal closes, or if make is stopped or killed.

The command gets its own session, so the terminal's signals reach only the runner. The runner forwards a stop signal
as an interrupt, and waits for the end of the command. After the first interrupt Pulumi ends the update cleanly. After
a second interrupt Pulumi ends it at once.

The command prints to a file, and the runner reads this file. A pipe is not used: in `make up | head` its reader could
end first, and a Go program that prints to a pipe without a reader is killed.
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
from typing import IO, NoReturn, TextIO

INTERRUPT_TIMEOUT = 60.0
"""Seconds to wait for the clean end of an interrupted command, before the runner sends a second interrupt."""
KILL_TIMEOUT = 10.0
"""Time in seconds that a command gets after the second interrupt, before it is killed. The next command cleans up (`heal.py`)."""
PERIOD = 0.05
"""Seconds between two reads of the command's output."""
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int) -> None:
    """Make the kernel send this process a signal when its parent dies (Linux only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def undo_when_stopped(name: str) -> None:
    """Make a stop signal raise SystemExit in this process, so that `finally` blocks run.

    After the first stop signal, further stop signals are ignored. A signal that this process already ignores, as under
    `nohup`, stays ignored.
    """
    handled = [number for number in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]

    def stop(number: int, _: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(f"{name}: stopped by a signal ({signal.Signals(number).name})")

    for number in handled:
        signal.signal(number, stop)


def run(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, copy: Path | None = None
) -> int:
    """Run a command to its end and return its exit code. The command's output is also written to the file `copy`.

    Raises:
        FileNotFoundError: the command is not on PATH.
        SystemExit: the command was killed, or it ended after this process had received a stop signal.
        KeyboardInterrupt: the command ended after the user had interrupted this process.
    """
    sys.stdout.flush()
    with TemporaryFile() as out, TemporaryFile() as err, _open_copy(copy) as sink:
        child = _begin(words, cwd, env, out, err)
        relays = [_Relay(out, sys.__stdout__, sink), _Relay(err, sys.__stderr__, sink)]
        with _forward_signals(child):
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
        raise SystemExit(f"{words[0]} was killed (signal {number}); run the same command again: it first cleans up")
    return child.returncode


def capture(words: Sequence[str], *, cwd: Path | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output.

    A killed command raises no error. All other errors are the same as in `run`.

    Args:
        words: the command with its arguments.
        cwd: working directory.
        text: standard input of the command. Pass secrets here, because all users can read command lines.
    """
    with TemporaryFile() as out, TemporaryFile() as err, TemporaryFile() as source:
        source.write(text.encode())
        source.seek(0)
        child = _begin(words, cwd, None, out, err, source)
        with _forward_signals(child):
            code = child.wait()
        texts = [_read(file).decode(errors="replace") for file in (out, err)]
    return subprocess.CompletedProcess(words, code, *texts)


def exec_command(words: Sequence[str]) -> NoReturn:
    """Replace this process by a command. The command gets the terminal, the standard input, and all signals.

    Raises:
        FileNotFoundError: the command is not on PATH.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(words[0], list(words))  # noqa: S606 (no shell is needed)


def attach(words: Sequence[str], feed: Sequence[str] = ()) -> int:
    """Run a command in the foreground of the terminal, and return its exit code.

    The terminal sends an interrupt to the command, so this process ignores it, also after the command has ended. If the command does not end
    within `KILL_TIMEOUT` seconds after an interrupt, it is killed. It is also killed if this process is stopped.

    Args:
        words: the command. It gets the terminal, and the standard input unless another command gets it.
        feed: another command that gets the standard input, or empty. It is killed when the first command ends.

    Raises:
        FileNotFoundError: the command is not on PATH.
        KeyboardInterrupt: the command ended after the user had interrupted it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    children: list[subprocess.Popen[bytes]] = []
    interrupts: list[int] = []

    def kill_later(number: int, _: FrameType | None) -> None:
        interrupts.append(number)
        for child in children:
            timer = threading.Timer(KILL_TIMEOUT, child.kill)
            timer.daemon = True
            timer.start()

    # An ignored signal would also be ignored in the command, unlike a signal with a handler.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, kill_later)
    try:
        children.append(_begin_attached(words, subprocess.DEVNULL if feed else None))
        if feed:
            children.append(_begin_attached(feed, None, subprocess.DEVNULL))
        code = children[0].wait()
    finally:
        for child in children:
            child.kill()
            child.wait()
    if interrupts:
        raise KeyboardInterrupt
    # A shell also reports a signal as 128 and the number of the signal.
    return code if code >= 0 else 128 - code


def _begin_attached(words: Sequence[str], source: int | None, out: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, stdin=source, stdout=out, stderr=out, preexec_fn=lambda: end_with_parent(signal.SIGKILL)
    )


def _begin(
    words: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    out: IO[bytes],
    err: IO[bytes],
    source: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, cwd=cwd, env=env, stdin=source, stdout=out, stderr=err, start_new_session=True,
        preexec_fn=lambda: end_with_parent(signal.SIGINT),
    )  # fmt: skip


def _read(file: IO[bytes], start: int = 0) -> bytes:
    # Use `pread`, because the command writes at the file's offset, and `pread` does not move this offset.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size - start, start)


class _Relay:
    """Relay of a command's output to a stream and, optionally, to a file. The file is written even if the stream is closed."""

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
def _forward_signals(child: subprocess.Popen[bytes]) -> Generator[None]:
    """Forward stop signals to the command during the `with` block. If a signal came, end this process at the end of the block."""
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

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        interrupt()
        if len(received) == 1:
            timers.extend(
                (threading.Timer(INTERRUPT_TIMEOUT, interrupt), threading.Timer(INTERRUPT_TIMEOUT + KILL_TIMEOUT, kill))
            )
            for timer in timers:
                timer.daemon = True
                timer.start()

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # An ignored signal, as under `nohup`, stays ignored.
            signal.signal(number, forward)
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
        raise SystemExit(f"stopped by a signal ({signal.Signals(received[0]).name}); the command has also ended")


@contextmanager
def _open_copy(file: Path | None) -> Generator[IO[bytes] | None]:
    if not file:
        yield None
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        yield opened


def _write(target: int, text: bytes) -> None:
    while text:
        text = text[os.write(target, text) :]
