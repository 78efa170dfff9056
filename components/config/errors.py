"""Errors of the configuration. Each line of a message is `path: what is wrong; what to do`."""

from collections.abc import Iterator

from pulumi import RunError
from pydantic_core import PydanticCustomError

from . import explain


class ConfigError(RunError):
    """Invalid configuration. The message has one line for each problem: `path: what is wrong; what to do`.

    The error is raised before any resource is registered, so nothing has been changed.

    Example:
        try:
            context = Context.load()
        except ConfigError as error:
            print(error)  # app.api: only root can open port 80; use a port above 1023, such as 8080
            raise
    """


def problem(wrong: str, fix: str) -> PydanticCustomError:
    """Return an error with the text `wrong; fix`. Validators of models raise this error."""
    return PydanticCustomError("tiers", "{wrong}; {fix}", {"wrong": wrong, "fix": fix})


def refuse(problems: Iterator[str], root: str = "configuration") -> None:
    """Raise a ConfigError if there are problems.

    Args:
        problems: lines of the error message.
        root: config path at the start of the last line, if there are too many problems to show. This line counts the rest.
    """
    if lines := explain.join_problems(root, problems):
        raise ConfigError(lines)
