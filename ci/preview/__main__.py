"""Command that writes the comment of a pull request: `python -m ci.preview STACK [FILE]`."""

from ci import command_line

from . import main

if __name__ == "__main__":
    words = command_line.arguments("preview STACK [FILE]", 1, 2)
    command_line.run_and_exit("preview", lambda: main(*words))
