"""Output of the comment: print the comment, or replace the stack's earlier comment in a pull request."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from pulumi import RunError

from .read import parse_preview, run_preview
from .render import marker, render_comment

PULL_REQUEST = ("GITHUB_TOKEN", "GITHUB_REPOSITORY", "PR_NUMBER")
"""Environment variables for the access to the pull request. The comment is posted only if all are set."""


def main(stack: str, file: str | None = None) -> int:
    """Post or print the comment of a stack. Return 1 if the preview failed.

    Args:
        stack: the stack's name.
        file: file with the output of `pulumi preview --json --show-sames`. If None, that command is run.

    Raises:
        RunError: GitHub refuses the comment.
    """
    preview = parse_preview(json.loads(Path(file).read_text()) if file else run_preview(stack), stack)
    text = render_comment(preview)
    posts = all(os.environ.get(name) for name in PULL_REQUEST)
    print(post_comment(text, stack, os.environ) if posts else text, end="\n" if posts else "")
    return 1 if preview.errors else 0


def post_comment(text: str, stack: str, variables: Mapping[str, str]) -> str:
    """Post a comment in place of the stack's earlier comment in the pull request, and return a text with the URL.

    Raises:
        RunError: GitHub refuses the request.
    """
    api = variables.get("GITHUB_API_URL") or "https://api.github.com"
    issues = f"{api}/repos/{variables['GITHUB_REPOSITORY']}/issues"
    issue_comments = f"{issues}/{variables['PR_NUMBER']}/comments"
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {variables['GITHUB_TOKEN']}"
        session.headers["Accept"] = "application/vnd.github+json"
        comment_id = stack_comment(_all_comments(session, issue_comments), stack)
        verb, url = ("PATCH", f"{issues}/comments/{comment_id}") if comment_id else ("POST", issue_comments)
        return str(_request(session, verb, url, json={"body": text}).json()["html_url"])


def stack_comment(comments: Iterable[Mapping[str, Any]], stack: str) -> int | None:
    """Return the id of this stack's comment in a pull request, or None. Of several such comments, return the lowest id."""
    ids = (comment["id"] for comment in comments if (comment.get("body") or "").splitlines()[:1] == [marker(stack)])
    return min(ids, default=None)


def _all_comments(session: requests.Session, url: str) -> list[Mapping[str, Any]]:
    comments: list[Mapping[str, Any]] = []
    page: str | None = url
    while page:
        answer = _request(session, "GET", page, params={"per_page": 100})
        comments += answer.json()
        page = answer.links.get("next", {}).get("url")
    return comments


def _request(session: requests.Session, verb: str, url: str, **options: Any) -> requests.Response:
    try:
        answer = session.request(verb, url, timeout=30, **options)
    except requests.RequestException as error:
        raise RunError(f"{url}: GitHub can't be reached ({type(error).__name__}); try again") from None
    if not answer.ok:
        fix = "the token needs `pull-requests: write`, and PR_NUMBER must name a pull request of GITHUB_REPOSITORY"
        raise RunError(f"{verb} {url}: GitHub answers {answer.status_code}; {fix}")
    return answer
