"""Tests of releases under load: no request is lost, no job is done twice, and no page has answers of two releases."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from .load import load, stream, wait_until_settled
from .stack import PAGE, ClusterStack, Stack, create_board, deployment, eventually

RELEASES, SOAK_RELEASES = 2, 20
"""Numbers of consecutive releases in a test: without --soak, and with --soak."""
RATE, SOAK_RATE = 150, 300
"""Requests per second: without --soak, and with --soak.

Without --soak the rate is lower, because a busy machine with two cores can't process 300 requests per second. Requests would then
fail because of the load, not because of a switch.
"""


@pytest.fixture(scope="module", params=[pytest.param("docker", marks=pytest.mark.long), "kubernetes"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Deploy the board on both platforms in turn, with two instances of web and api."""
    board = create_board(request.param, tmp_path_factory.mktemp("load"), "e2e-load")
    board.environment.setdefault("tiers", {}).setdefault("api", {}).setdefault("replicas", 2)
    board.environment["tiers"]["api"]["cpu"] = 1
    if isinstance(board, ClusterStack):
        board.environment["kubernetes"] |= {"schedule_within": "20s"}
        board.environment["kubernetes"]["gateway"]["within"] = "10s"
    with deployment(board):
        yield board


def raise_version(stack: Stack) -> str:
    """Raise the version of the application, and return the new version."""
    major, minor, _ = stack.app["version"].split(".")
    stack.app["version"] = f"{major}.{int(minor) + 1}.0"
    return stack.app["version"]


def test_consecutive_releases_lose_no_request_and_no_job(stack: Stack, pytestconfig: pytest.Config) -> None:
    soak = pytestconfig.getoption("soak")
    releases = SOAK_RELEASES if soak else RELEASES
    before = stack.get("/api/stats").json()["messages"]
    with load(stack, seconds=releases * 120, rate=SOAK_RATE if soak else RATE) as traffic:
        for _ in range(releases):
            number = raise_version(stack)
            with stream(stack) as feed:
                slot = stack.live()["slot"]
                stack.up()
                eventually(lambda: stack.live()["release"].startswith(f"{number}-"), 5)  # noqa: B023
            assert feed.cut is None, "an open stream must stay connected to its slot"
            assert feed.hello["slot"] == slot
    print(f"\n{traffic}")
    assert not traffic.failed, traffic
    # Without --soak accept that k6 could not send all requests in time, because the machine may be busy with other work.
    assert not (soak and traffic.dropped), f"k6 could not send all requests in time: {traffic}"
    assert (traffic.mixed, traffic.stale) == (0, 0), traffic
    wait_until_settled(stack, before, traffic)


@pytest.mark.long
def test_repeated_rollbacks_lose_no_request(stack: Stack) -> None:
    with load(stack) as traffic:
        for _ in range(2):
            slot = stack.live()["slot"]
            stack.up(TIERS_RELEASE="previous")
            eventually(lambda: stack.live()["slot"] != slot, 5)  # noqa: B023
    print(f"\n{traffic}")
    assert (traffic.failed, traffic.mixed, traffic.stale) == (0, 0, 0), traffic


def test_page_loaded_before_a_switch_keeps_working(stack: Stack) -> None:
    browser = requests.Session()
    browser.headers.update(stack.headers)
    page = browser.get(f"{stack.url}/", headers=PAGE, timeout=10)
    before = page.headers["X-Release"]
    assets = re.findall(r'(?:src|href)="(/?assets/[^"]+)"', page.text)
    assert assets
    raise_version(stack)
    stack.up()
    # Set the header Cookie, because `requests` connects to 127.0.0.1 and does not send a cookie that belongs to the host name in
    # the header Host.
    headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0], "Accept": "*/*"}
    for asset in assets:
        assert browser.get(f"{stack.url}/{asset.lstrip('/')}", headers=headers, timeout=10).status_code == 200
    assert browser.get(f"{stack.url}/api/release", headers=headers, timeout=10).json()["release"] == before
    assert browser.get(f"{stack.url}/release.json", headers=headers, timeout=10).json()["release"] == before
    new_page = browser.get(f"{stack.url}/", headers=headers | PAGE, timeout=10)
    assert new_page.headers["X-Release"] == stack.live()["release"] != before


@pytest.mark.long
def test_old_worker_finishes_its_job_after_a_switch(stack: Stack) -> None:
    job = stack.post("a long job", work_seconds=20)
    eventually(lambda: stack.get(f"/api/messages/{job['id']}").json()["attempts"] == 1)
    slot = stack.live()["slot"]
    raise_version(stack)
    stack.up()
    eventually(lambda: stack.get(f"/api/messages/{job['id']}").json()["processed"] == 1, 60)
    assert stack.get(f"/api/messages/{job['id']}").json()["attempts"] == 1
    eventually(lambda: not stack.ids("worker", slot), 90)


FAILS_BEHIND_THE_GATEWAY = (
    r"sed 's|location = /health {|& if ($http_x_forwarded_for) { return 500; }|; s|@RELEASE@|x|g; s|@SLOT@|x|g'"
    " /etc/nginx/board.conf > /tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off;'"
)
"""Start command of a web tier whose health path answers 500 to requests through the gateway, and 200 to the probe."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"ready": "/assets/nothing-here.js"}, "app.web: ", id="never-ready", marks=pytest.mark.long),
        pytest.param(
            {"command": ["sh", "-c", FAILS_BEHIND_THE_GATEWAY]}, "app.web.health: /health: HTTP 500", id="smoke-test"
        ),
    ],
)
def test_release_that_fails_a_gate_loses_no_request(stack: Stack, change: dict[str, Any], message: str) -> None:
    """Check two gates under load: readiness and the smoke test.

    test_docker.py and test_kubernetes.py check the other gates: a failing migration, a crash and a missing image.
    """
    before, valid = stack.live(), copy.deepcopy(stack.app)
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    stack.app["web"] |= change | {"start_within": "8s"}
    raise_version(stack)
    with load(stack, rate=100) as traffic:
        failed = stack.up(check=False)
    stack.app.clear()
    stack.app |= valid
    assert failed.code
    assert message in failed.text, failed.text
    assert "the live slot was not changed" in failed.text
    assert stack.live() == before
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert not traffic.failed, traffic


def test_release_after_a_failed_release_goes_live(stack: Stack) -> None:
    number = raise_version(stack)
    with load(stack, rate=100) as traffic:
        stack.up()
    assert stack.live()["release"].startswith(f"{number}-")
    assert not traffic.failed, traffic
    assert set(stack.up().changes) == {"unchanged"}


@pytest.mark.long
def test_rotated_secret_is_released_without_a_lost_request(stack: Stack) -> None:
    stack.app["api"].setdefault("secrets", []).append("signing-key")
    with load(stack, rate=100) as traffic:
        for value in ("e2e-signing-1", "e2e-signing-2"):
            before = stack.live()
            stack.pulumi("config", "set", "--secret", "--path", "secrets.signing-key", value, check=True)
            stack.up()
            assert stack.live()["slot"] != before["slot"]
    assert not traffic.failed, traffic


def test_release_with_manual_promotion_can_be_viewed_and_goes_live_after_promotion(stack: Stack) -> None:
    stack.environment["release"] = {"promote": "manual"}
    before, number = stack.live(), raise_version(stack)
    update = stack.up()
    assert stack.live() == before
    waiting = stack.outputs()["waiting"]
    assert f"{number}-" in waiting
    idle = "blue" if before["slot"] == "green" else "green"
    assert f"'X-Tiers-Slot: {idle}'" in waiting
    assert stack.get("/api/release", headers={"X-Tiers-Slot": idle}).json()["slot"] == idle
    assert "the release waits to be promoted" in update.text
    assert set(stack.up().changes) == {"unchanged"}
    stack.up(TIERS_RELEASE="promote")
    assert stack.live()["slot"] == idle
    assert "waiting" not in stack.outputs()
    stack.environment.pop("release")
    assert set(stack.up().changes) == {"unchanged"}


def test_rollback_to_an_unhealthy_slot_is_refused(stack: Stack) -> None:
    before = stack.live()
    standby = "blue" if before["slot"] == "green" else "green"
    stack.stop_tier("api", standby)
    refused = stack.up(check=False, TIERS_RELEASE="previous")
    assert refused.code
    assert f"the live slot was not changed: {before['slot']} answers 200. Deploy a new release instead" in refused.text
    assert stack.live() == before
    raise_version(stack)
    stack.up()
    assert stack.live()["slot"] == standby


def test_release_with_a_changed_program_does_not_change_the_live_slot(stack: Stack) -> None:
    """Remove a tier from the application, change labels in the program, and check that the next release leaves the live slot untouched."""
    before, valid = stack.live(), copy.deepcopy(stack.app)
    ids = {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api", "worker")}
    generations = stack.generations(before["slot"])
    assert generations
    stack.app.pop("worker")
    sizes = copy.deepcopy(stack.environment["tiers"])
    stack.environment["tiers"].pop("worker", None)
    raise_version(stack)
    stack.environment["release"] = {"promote": "manual"}
    for name, old, new in (
        ("kubernetes/objects.py", "{names.LABEL_VERSION: target", '{"example.com/version": target'),
        ("docker/registrar.py", "labels |= {LABEL_SLOT:", 'labels |= {"example.com/upgraded": "yes", LABEL_SLOT:'),
    ):
        file = stack.folder / "components/platforms" / name
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))
    with load(stack, rate=100) as traffic:
        stack.up()
    assert stack.live() == before
    assert {tier: stack.ids(tier, before["slot"]) for tier in ids} == ids
    assert stack.generations(before["slot"]) == generations
    stack.up(TIERS_RELEASE="promote")
    assert stack.live()["slot"] != before["slot"]
    assert {tier: stack.ids(tier, before["slot"]) for tier in ("web", "api")} == {
        tier: ids[tier] for tier in ("web", "api")
    }
    assert not traffic.failed, traffic
    stack.app.clear()
    stack.app |= valid
    stack.environment["tiers"] = sizes
    stack.environment.pop("release")


@pytest.mark.long
def test_cold_standby_is_suspended_and_restarted_by_a_rollback(stack: Stack) -> None:
    browser = requests.Session()
    browser.headers.update(stack.headers)
    page = browser.get(f"{stack.url}/", headers=PAGE, timeout=10)
    headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0], "Accept": "*/*"}
    stack.environment["release"] = {"standby": "cold"}
    raise_version(stack)
    with load(stack, rate=100) as traffic:
        stack.up()
        before = stack.live()
        # With `standby: cold` the previous release is suspended, that is, its containers are stopped. Requests with the cookie of the
        # previous release must go to the live slot, also over a connection that was opened before the update.
        for path in ("/api/release", "/release.json"):
            assert browser.get(f"{stack.url}{path}", headers=headers, timeout=10).json()["release"] == before["release"]
        raise_version(stack)
        stack.up()
        eventually(lambda: not running_ids(stack, before["slot"]), 60)
        assert set(stack.up().changes) == {"unchanged"}
        stack.up(TIERS_RELEASE="previous")
    assert stack.live() == before
    assert len(running_ids(stack, before["slot"])) >= 4
    assert not traffic.failed, traffic


def running_ids(stack: Stack, slot: str) -> set[str]:
    """Return the ids of all running containers of a slot."""
    return {entry for tier in ("web", "api", "worker") for entry in stack.ids(tier, slot)}


@pytest.mark.long
def test_contract_migration_is_shown_by_the_preview_and_blocks_the_rollback(stack: Stack) -> None:
    stack.environment.pop("release", None)
    stack.app["api"]["migrate"]["contract"] = True
    before, number = stack.live(), raise_version(stack)
    idle = "blue" if before["slot"] == "green" else "green"
    preview = stack.preview()
    for pattern in (
        rf"{idle} gets {number}-\w+, in place of ",
        r"migration: api\.migrate \(contract: it breaks the release before it\)",
        rf"{before['slot']} stays live with {before['release']} until the switch",
        rf"switch \d+ moves all traffic to {idle}, {number}-",
    ):
        assert re.search(pattern, preview.text), preview.text
    assert stack.live() == before
    stack.up()
    stack.app["api"]["migrate"].pop("contract")
    refused = stack.up(check=False, TIERS_RELEASE="previous")
    assert refused.code
    assert "a migration between the two has `contract: true`" in refused.text
    assert stack.live()["slot"] == idle
    stack.up(TIERS_RELEASE="previous", TIERS_FORCE="contract")
    assert stack.live() == before


def test_status_shows_both_slots_and_the_shared_services_and_the_last_switch_on_one_screen(stack: Stack) -> None:
    current, text = stack.live(), stack.run_ci("status")
    print(f"\n{text}")
    assert f"{current['slot']} is live" in text
    assert f"{current['release']}, live, created " in text
    assert re.search(r"api +2/2 ready +\S*board-api:", text)
    assert re.search(r"worker +suspended +\S*board-api:", text)
    assert "shared   ready: cache 1/1, database 1/1" in text
    assert re.search(
        rf"switch \d+ +\S+  \S+ → {re.escape(current['release'])} \({current['slot']}\)\n +by \S+; passed after ", text
    )
    assert len(text.splitlines()) <= 24
    assert stack.outputs()["last_switch"]["to"] == current["release"]
