"""The gateway's configuration: every route to both slots, hidden paths, and nothing that needs a reload."""

import pytest

from components.platforms.haproxy import configuration, readiness
from components.release import Slot
from components.workload import Route

API = Route(tier="api", prefixes=("/api", "/api/internal"), port=8000, health="/ready", hidden=("/metrics",))
WEB = Route(tier="web", prefixes=("/",), port=8080, health="/health")
TEXT = configuration([API, WEB], metrics=False)


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize("route", [API, WEB], ids=lambda route: route.tier)
def test_every_route_has_a_way_to_both_slots(route: Route, slot: Slot) -> None:
    block = TEXT.split(f"backend {route.tier}-{slot}\n")[1].split("\n\n")[0]
    assert f" {route.tier}-{slot}:{route.port}" in block
    assert f"option httpchk GET {route.health}" in block
    assert "init-addr none" in block


def test_the_longest_prefix_wins_and_ends_at_a_segment() -> None:
    rules = [line.strip() for line in TEXT.splitlines() if "use_backend" in line and "txn.tier" not in line]
    assert rules == [
        "use_backend api-%[var(txn.slot)] if { path /api/internal } || { path_beg /api/internal/ }",
        "use_backend api-%[var(txn.slot)] if { path /api } || { path_beg /api/ }",
        "use_backend web-%[var(txn.slot)]",
    ]


def test_the_smoke_test_reaches_every_tier_whatever_its_paths() -> None:
    for route in (API, WEB):
        assert (
            f"set-var(txn.tier) str({route.tier}) if {{ path {readiness(route)} }} {{ var(txn.asked) -m found }}"
            in TEXT
        )
        assert f"set-path {route.health} if {{ var(txn.tier) -m str {route.tier} }}" in TEXT
        assert f"use_backend {route.tier}-%[var(txn.slot)] if {{ var(txn.tier) -m str {route.tier} }}" in TEXT


def test_metrics_of_a_tier_are_hidden() -> None:
    assert "http-request deny deny_status 404 if { path -m beg /metrics }" in TEXT


def test_only_slots_can_be_asked_for() -> None:
    assert "if { req.hdr(X-Tiers-Slot) blue green }" in TEXT


def test_its_own_metrics_are_there_only_if_asked_for() -> None:
    assert "prometheus-exporter" not in TEXT
    assert "prometheus-exporter" in configuration([WEB], metrics=True)


def test_no_post_is_sent_twice() -> None:
    assert "retry-on conn-failure\n" in TEXT
