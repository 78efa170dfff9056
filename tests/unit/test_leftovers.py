"""Tests that only objects of killed end-to-end test runs count as leftovers."""

from types import SimpleNamespace

import pytest

from tests.e2e.leftovers import LABEL, is_leftover, is_recreated

from .program import first_release

STANDARD = "app.kubernetes.io"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"tiers.app": "board", "tiers.environment": "e2e"}, True),
        ({"tiers.app": "shop", "tiers.environment": "e2e-put-back"}, True),
        ({f"{STANDARD}/part-of": "board", f"{STANDARD}/instance": "board-e2e-live"}, True),
        ({LABEL: "prod"}, True),
        ({"tiers.app": "e2e", "tiers.environment": "dev"}, False),
        ({f"{STANDARD}/part-of": "e2e-shop", f"{STANDARD}/instance": "e2e-shop-staging"}, False),
        ({"tiers.app": "board", "tiers.environment": "live-e2e"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_objects_with_labels_of_an_end_to_end_test_are_leftovers(
    labels: dict[str, str] | None, expected: bool
) -> None:
    assert is_leftover(labels) is expected


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_no_object_of_a_user_stack_is_a_leftover_of_an_end_to_end_test(stack: str) -> None:
    labelled = [entry.labels for entry in first_release(stack) if entry.custom and entry.labels]
    assert labelled
    assert not [labels for labels in labelled if is_leftover(labels)]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("board-e2e-backup-database-data", None, True),
        ("board-e2e-backup-database-data", {"tiers.environment": "prod"}, False),
        ("board-dev-database-data", None, False),
        ("shop-board-e2e-data", {}, False),
    ],
)
def test_only_unlabelled_volumes_with_the_name_of_a_test_stack_count_as_recreated_by_the_engine(
    name: str, labels: dict[str, str] | None, expected: bool
) -> None:
    assert is_recreated(SimpleNamespace(name=name, attrs={"Labels": labels})) is expected
