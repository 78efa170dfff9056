"""Arguments, error handling and exit code of every command. An error is printed as one line, never as a traceback."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

LOGS = Path.home() / ".local" / "state" / "tiers" / "errors"
_OWN_ERRORS = {"RunError", "ConfigError", "FileError", "CallError", "LockedError", "LabError"}
"""Error classes whose messages are written for users. Names are compared, because importing the classes takes a second."""


def run_and_exit(name: str, command: Callable[[], object]) -> NoReturn:
    """Run a command, and end this process with the command's exit code."""
    code = attempt(name, command)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # The reader closed the pipe, as in `make status | head -1`. Redirect the output, because otherwise Python would
        # report the closed pipe again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    sys.exit(code)


def attempt(name: str, command: Callable[[], object]) -> int:
    """Run a command and return its exit code. An error is printed as one line."""
    try:
        code = command()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        _print_error(f"{name}: interrupted")
        return 130
    except SystemExit as stop:
        if isinstance(stop.code, str):
            _print_error(stop.code if stop.code.startswith(f"{name}: ") else f"{name}: {stop.code}")
            return 1
        return stop.code or 0
    except Exception as error:
        _print_error(f"{name}: {expected_message(error) or _unexpected(name, error)}")
        return 1


def arguments(usage: str, minimum: int, maximum: int) -> Sequence[str]:
    """Return the arguments of the command line. If there are too few or too many, print the usage and exit."""
    words = sys.argv[1:]
    if not minimum <= len(words) <= maximum:
        _print_error(f"usage: python -m ci.{usage}")
        sys.exit(2)
    return words


def expected_message(error: BaseException) -> str:
    """Return the message to print for a known kind of error, or an empty text for an unexpected error."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if {kind.__name__ for kind in type(error).__mro__} & _OWN_ERRORS:
        return str(error)
    if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        return _command_message(error)
    # Check these classes before OSError, because the errors of `requests` are subclasses of OSError.
    if "docker.errors.DockerException" in names:
        return f"the Docker engine returned an error or does not answer: {_short(getattr(error, 'explanation', None) or error)}"
    if "kubernetes.client.exceptions.OpenApiException" in names:
        reason = getattr(error, "reason", None) or error
        return (
            f"the cluster's API returned an error: {getattr(error, 'status', '')} {_short(_message(error) or reason)}"
        )
    if "kubernetes.config.config_exception.ConfigException" in names:
        return f"the kubeconfig can't be used: {_short(error)}"
    if names & {"urllib3.exceptions.HTTPError", "requests.exceptions.RequestException"}:
        return f"the engine, the cluster or a server can't be reached: {_short(error)}"
    if isinstance(error, UnicodeError):
        return f"a file is not UTF-8 text: {_short(error)}"
    if isinstance(error, RecursionError):
        return "a file is nested too deeply; reduce the nesting of the file"
    if isinstance(error, json.JSONDecodeError):
        return f"a file or a response is not JSON: {_short(error)}"
    if isinstance(error, OSError):
        return _system_message(error)
    return ""


def _command_message(error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    words: Any = error.cmd
    # Print only the first words, because later words may contain a secret.
    command = words.partition(" ")[0] if isinstance(words, str) else " ".join(str(word) for word in words[:3])
    if isinstance(error, subprocess.TimeoutExpired):
        return f"`{command}` did not end within {error.timeout:.0f} s"
    printed: Any = error.stderr or error.stdout or b""
    text = printed.decode(errors="replace") if isinstance(printed, bytes) else str(printed)
    return f"`{command}` ended with exit code {error.returncode}" + (
        f": {_short(text.strip())}" if text.strip() else ": see above"
    )


def _system_message(error: OSError) -> str:
    filename, why = error.filename, error.strerror or str(error)
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(filename, str)
        and "/" not in filename
        and "." not in filename
    ):
        return f"{filename} is not on PATH; run `make lab`, or install {filename}"
    return f"{os.fsdecode(filename) if isinstance(filename, str | bytes) else 'the system'}: {why}"


def _message(error: BaseException) -> str:
    with suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(getattr(error, "body", ""))["message"])
    return ""


def _short(message: object) -> str:
    return " ".join(str(message).split())[:600]


def _unexpected(name: str, error: Exception) -> str:
    text = f"{type(error).__name__}: {_short(error)}"
    file = LOGS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Only this user may read the log, because the traceback may contain secret values.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", errors="replace") as log:
            log.writelines(traceback.format_exception(error))
    except OSError:
        return f"unexpected error: {text}"
    return f"unexpected error: {text}; please report it with {file}"


def _print_error(text: str) -> None:
    with suppress(OSError):
        print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)
