"""Tests of stores on both platforms: a second PostgreSQL as a plain image, an HTTP server without data, and a store of another stack.

The tests run in file order, from the first deployment to the removal.
"""

import copy
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from .stack import (
    ClusterStack,
    DockerStack,
    Stack,
    create_board,
    deployment,
    destroy_without_leftovers,
    eventually,
    steady_requests,
)

PASSWORD = "p@ss w/o 'quotes'"
STORES: Mapping[str, Any] = {
    "reports": {
        "tier": "store", "image": "postgres:15-bookworm", "port": 5432, "alive": ["pg_isready", "-q", "-h", "127.0.0.1", "-U", "reports"],
        "env": {"POSTGRES_USER": "reports", "PGDATA": "/var/lib/postgresql/data/pgdata"}, "volumes": {"report-data": "/var/lib/postgresql/data"},
        "secret_env": {"POSTGRES_PASSWORD": "${secrets.report-password}"}, "writable": ["/tmp", "/var/run/postgresql"], "start_within": "120s",
    },
    "documents": {
        "tier": "store", "image": "python:3.11-slim-bookworm", "port": 8700, "health": "/", "uid": 10001,
        "command": ["python3", "-m", "http.server", "8700", "--directory", "/usr/share/doc"],
    },
    "mailbox": {"tier": "store", "image": "registry.invalid/mailbox:1", "port": 1025, "health": "/", "environments": ["another-stack"]},
}  # fmt: skip
CONNECT = """\
import os, socket, urllib.request
socket.create_connection((os.environ["REPORTS_HOST"], int(os.environ["REPORTS_PORT"])), 5).close()
page = urllib.request.urlopen(f"http://{os.environ['DOCUMENTS_HOST']}:{os.environ['DOCUMENTS_PORT']}/", timeout=5)
print("answered", page.status, os.environ["REPORTS_URL"].rpartition("@")[2], "MAILBOX_HOST" in os.environ)
"""


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("stores"), "e2e-stores")
    stack.app["services"] = copy.deepcopy(dict(STORES))
    stack.app["api"]["needs"] = [*stack.app["api"]["needs"], *STORES]
    stack.app["api"]["secret_env"] = {
        **stack.app["api"].get("secret_env", {}),
        "REPORTS_URL": "postgresql://reports:${secrets.report-password}@${reports.host}:${reports.port}/reports",
    }
    words = ("config", "set", "--secret", "--path", "secrets.report-password", "--stack", stack.name, PASSWORD)
    stack.pulumi(*words, check=True)
    with deployment(stack):
        yield stack


def run_in(stack: Stack, service: str, *command: str) -> str:
    return stack.run_ci("container", service, shlex.join(command))


def query(stack: Stack, sql: str) -> str:
    """Run a query in the store `reports`, and return its output."""
    return run_in(stack, "reports", "psql", "-U", "reports", "-tA", "-c", sql)


def instance(stack: Stack, name: str) -> str:
    """Return the id of the running container or pod of a store."""
    if isinstance(stack, ClusterStack):
        [pod] = stack.pods(name)
        return str(pod.metadata.uid)
    assert isinstance(stack, DockerStack)
    return str(stack.engine.containers.get(f"{stack.prefix}-{name}-1").id)


def test_stores_run_and_a_second_update_changes_nothing(stack: Stack) -> None:
    assert instance(stack, "reports") and instance(stack, "documents")
    assert set(stack.up().changes) == {"unchanged"}
    query(stack, "create table totals (day date, orders int); insert into totals values ('2026-11-30', 42)")


def test_service_that_needs_stores_connects_to_their_addresses(stack: Stack) -> None:
    output = run_in(stack, "api", "python3", "-c", CONNECT)
    assert "answered 200 reports:5432/reports False" in output


def test_status_logs_and_check_list_the_stores_of_the_stack(stack: Stack) -> None:
    assert {"reports", "documents"} <= set(stack.run_ci("status").split())
    checked = stack.run_ci("check")
    assert "reports 1" in checked and "documents 1" in checked and "mailbox" not in checked
    lines = stack.run_ci("logs", "reports", "", "1h", "no")
    assert "database system is ready to accept connections" in lines


def test_secret_of_a_store_is_in_no_plain_text_of_state_or_platform(stack: Stack) -> None:
    texts = [stack.pulumi("stack", "export", check=True).text]
    if isinstance(stack, DockerStack):
        texts += [json.dumps(container.attrs) for container in stack.containers()]
    if isinstance(stack, ClusterStack):
        texts.append(stack.kubectl("get", "deployments,statefulsets,pods,jobs", "--output=json"))
    for text in texts:
        assert "p@ss w/o" not in text
        assert "p%40ss" not in text


def test_release_changes_no_store_and_loses_no_request(stack: Stack) -> None:
    before = instance(stack, "reports"), instance(stack, "documents")
    stack.app["version"] = "9.9.9"
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    assert (instance(stack, "reports"), instance(stack, "documents")) == before
    assert "42" in query(stack, "select orders from totals")


def test_changed_store_restarts_with_its_data_and_makes_no_release(stack: Stack) -> None:
    before, release = instance(stack, "reports"), stack.serving_release()
    stack.app["services"]["reports"]["command"] = ["postgres", "-c", "max_connections=20"]
    stack.up()
    assert instance(stack, "reports") != before
    assert stack.serving_release() == release
    assert "20" in query(stack, "show max_connections")
    assert "42" in query(stack, "select orders from totals")


def test_update_that_would_delete_the_volume_of_a_store_is_refused(stack: Stack) -> None:
    app, before = copy.deepcopy(stack.app), instance(stack, "reports")
    stack.app["services"]["reports"]["volumes"] = {"other-data": "/var/lib/postgresql/data"}
    renamed = stack.up(check=False)
    assert renamed.code
    assert "app.services.reports.volumes: the store no longer has the volume report-data" in renamed.text
    del stack.app["services"]["reports"], stack.app["api"]["secret_env"]["REPORTS_URL"]
    stack.app["api"]["needs"].remove("reports")
    removed = stack.up(check=False)
    assert removed.code
    assert "app.services.reports: this stack no longer has the store" in removed.text
    stack.app = stack.project["config"]["app"]["value"] = app
    assert set(stack.up().changes) == {"unchanged"}
    assert instance(stack, "reports") == before
    assert "42" in query(stack, "select orders from totals")


def test_store_without_data_is_removed_after_the_release_that_no_longer_needs_it(stack: Stack) -> None:
    stack.app["api"]["needs"].remove("documents")
    stack.up()
    del stack.app["services"]["documents"]
    with steady_requests(stack) as statuses:
        stack.up()
    assert set(statuses) <= {"200", "201"}, statuses
    eventually(lambda: "documents" not in stack.run_ci("status").split())


def test_destroy_leaves_nothing(stack: Stack) -> None:
    destroy_without_leftovers(stack)
