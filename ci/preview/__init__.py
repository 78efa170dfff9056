"""Preview of an update as a comment for a pull request: `python -m ci.preview STACK [FILE]`.

FILE is the output of `pulumi preview --json --show-sames`. Without FILE, this module runs that Pulumi command.

If GITHUB_TOKEN, GITHUB_REPOSITORY and PR_NUMBER are set, the comment replaces the stack's earlier comment in the pull
request. Otherwise the comment is printed. If the preview failed, the exit code is 1 and the comment gives the reason.

`read.py` reads the preview, `risk.py` finds the dangers of the update, `render.py` writes the comment, and `post.py`
posts the comment. Each of these modules imports only from the modules before it. See docs/pull-requests.md.
"""

from .post import main

__all__ = ["main"]
