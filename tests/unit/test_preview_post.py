"""Tests of `post_comment`, which posts a preview as a comment on a pull request. The tests use a mock of GitHub."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pulumi import RunError

from ci.preview.post import post_comment, stack_comment
from ci.preview.render import marker


class GitHub(BaseHTTPRequestHandler):
    """Mock of the GitHub API. The mock returns two comments per page and records each posted or changed comment."""

    comments: list[dict[str, Any]] = []
    writes: list[tuple[str, str, str]] = []

    def do_GET(self) -> None:
        page = int((re.findall(r"[?&]page=(\d+)", self.path) or ["1"])[0])
        next_link = (
            f'<http://{self.headers["Host"]}{self.path.partition("?")[0]}?page=2>; rel="next"' if page == 1 else ""
        )
        self.answer(200, self.comments[(page - 1) * 2 :][:2], next_link)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        self.writes.append((self.command, self.path, body))
        self.answer(200 if self.headers["Authorization"] == "Bearer good" else 403, {"html_url": "https://posted"})

    do_PATCH = do_POST  # noqa: N815

    def answer(self, status: int, content: Any, link: str = "") -> None:
        self.send_response(status)
        self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.setattr(GitHub, "comments", [])
    monkeypatch.setattr(GitHub, "writes", [])
    with HTTPServer(("127.0.0.1", 0), GitHub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield {"GITHUB_API_URL": address, "GITHUB_REPOSITORY": "me/it", "GITHUB_TOKEN": "good", "PR_NUMBER": "7"}
        server.shutdown()
        thread.join()


class TestPost:
    def test_preview_comment_of_the_stack_is_found_among_other_comments_of_a_pull_request(self) -> None:
        comments = [
            {"id": 1, "body": "nice"},
            {"id": 2, "body": None},
            {"id": 3, "body": f"> {marker('prod')}\nwhy?"},
            {"id": 4, "body": marker("production") + "\nx"},
            {"id": 6, "body": marker("prod") + "\nlater"},
            {"id": 5, "body": marker("prod") + "\r\nearlier"},
        ]
        assert stack_comment(comments, "prod") == 5
        assert stack_comment(comments, "staging") is None

    def test_first_preview_comment_is_posted_and_later_previews_replace_the_comment(
        self, github: dict[str, str]
    ) -> None:
        text = f"{marker('demo')}\n\nan update"
        assert post_comment(text, "demo", github) == "https://posted"
        GitHub.comments = [{"id": 1, "body": "a"}, {"id": 2, "body": "b"}, {"id": 3, "body": text}]
        post_comment(text, "demo", github)
        assert GitHub.writes == [
            ("POST", "/repos/me/it/issues/7/comments", text),
            ("PATCH", "/repos/me/it/issues/comments/3", text),
        ]

    def test_preview_comment_that_github_refuses_is_reported_with_the_missing_permission(
        self, github: dict[str, str]
    ) -> None:
        with pytest.raises(RunError, match=r"answers 403; the token needs `pull-requests: write`"):
            post_comment("text", "demo", github | {"GITHUB_TOKEN": "bad"})
