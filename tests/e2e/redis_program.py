"""Python programs that use the cache of a stack from containers of the board, and their output."""

import shlex

from .stack import Stack

CLIENT = """
import os, pathlib, signal, time, uuid
import redis
password = pathlib.Path(os.environ["CACHE_PASSWORD_FILE"]).read_text().strip()
client = redis.Redis(host=os.environ["CACHE_HOST"], port=int(os.environ["CACHE_PORT"]), password=password)
"""
"""Beginning of a program. It connects to the cache."""


def output_lines(stack: Stack, program: str) -> list[str]:
    """Run a program in a container of the api, and return the lines of its output."""
    return stack.run_ci("container", "api", f"python -c {shlex.quote(CLIENT + program)}").splitlines()
