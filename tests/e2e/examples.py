"""Data for test_examples.py: the applications in examples/.

Each application has a check for its seed data, and one `Edit` for each tier.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from .stack import Stack, eventually

PLATFORMS = ("docker", "kubernetes")


def page_shows(path: str, text: str) -> Callable[[Stack], bool]:
    """Return a function that checks whether the page at `path` contains `text`."""
    return lambda stack: text in stack.get(path).text


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edit of one source file of a tier, and a check that the edit is visible."""

    tier: str
    file: str
    """Path below the folder of the application."""
    old: str
    """Text that occurs exactly once in the file."""
    new: str
    """Text that replaces `old`."""
    is_visible: Callable[[Stack], bool]
    """Function that returns whether the running application shows the edit."""

    @contextmanager
    def apply(self, stack: Stack) -> Generator[None]:
        """Apply the edit, and undo it after the `with` block."""
        file = stack.app_folder / self.file
        text = file.read_text()
        assert text.count(self.old) == 1, f"{self.file}: {self.old!r} must occur exactly once"
        file.write_text(text.replace(self.old, self.new))
        try:
            yield
        finally:
            # Wait, because Vite may miss the second of two edits within one second.
            time.sleep(1)
            file.write_text(text)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An application in examples/."""

    name: str
    """Name of the folder in examples/."""
    has_seed: Callable[[Stack], bool]
    """Function that returns whether the running application shows its seed data."""
    edits: tuple[Edit, ...]
    """One edit for each tier of a slot. test_release_under_load deploys the edit of the api as a release."""

    def edit(self, tier: str) -> Edit:
        """Return the edit of a tier."""
        return next(edit for edit in self.edits if edit.tier == tier)


def customer(stack: Stack, name: str) -> requests.Session:
    """Log in to the example palmonas as a customer, and return the HTTP session."""
    session = requests.Session()
    session.headers.update(stack.headers)
    session.post(f"{stack.url}/api/session", json={"customer": name}, timeout=10).raise_for_status()
    return session


def has_seeded_order(stack: Stack) -> bool:
    """Return whether the customer of the seed data has an order."""
    return bool(customer(stack, "Ada").get(f"{stack.url}/api/orders", timeout=10).json())


def count_job_attempts(stack: Stack) -> int:
    """Order a product, and return how often the worker has started the job of this order."""
    session = customer(stack, "e2e")
    [product, *_] = stack.get("/api/products").json()
    order_request = {"product": product["id"], "quantity": 1}
    order_id = session.post(f"{stack.url}/api/orders", json=order_request, timeout=10).json()["id"]
    order: dict[str, int] = {}

    def read_attempts() -> int:
        order.update(session.get(f"{stack.url}/api/orders/{order_id}", timeout=10).json())
        return order["attempts"]

    eventually(read_attempts, 10)
    return order["attempts"]


EXAMPLES = (
    Example(
        name="about_me",
        has_seed=page_shows("/api/projects", "flyology"),
        edits=(
            Edit(
                tier="web",
                file="web/src/app/page.tsx",
                old="<h1>About me</h1>",
                new="<h1>About me, edited</h1>",
                is_visible=page_shows("/", "About me, edited"),
            ),
            Edit(
                tier="api",
                file="api/portfolio/main.py",
                old='"slot": settings.SLOT}',
                new='"slot": settings.SLOT, "edited": "yes"}',
                is_visible=page_shows("/api/release", "edited"),
            ),
        ),
    ),
    Example(
        name="pmanager",
        has_seed=page_shows("/api/projects", "From laptop to production"),
        edits=(
            Edit(
                tier="web",
                file="web/src/index.html",
                old="<title>pmanager</title>",
                new="<title>pmanager, edited</title>",
                is_visible=page_shows("/", "pmanager, edited"),
            ),
            Edit(
                tier="api",
                file="api/pmanager/main.py",
                old='FastAPI(title="pmanager"',
                new='FastAPI(title="pmanager, edited"',
                is_visible=page_shows("/api/openapi.json", "pmanager, edited"),
            ),
        ),
    ),
    Example(
        name="django_site",
        has_seed=page_shows("/api/articles", "two-slots-one-switch"),
        edits=(
            Edit(
                tier="web",
                file="web/src/index.html",
                old="<h1>A site with articles</h1>",
                new="<h1>A site with edited articles</h1>",
                is_visible=page_shows("/", "edited articles"),
            ),
            Edit(
                tier="api",
                file="api/articles/api.py",
                old='"slot": SLOT}',
                new='"slot": SLOT, "edited": "yes"}',
                is_visible=page_shows("/api/release", "edited"),
            ),
        ),
    ),
    Example(
        name="palmonas",
        has_seed=has_seeded_order,
        edits=(
            Edit(
                tier="web",
                file="frontend/src/App.jsx",
                old="<h1>palmonas</h1>",
                new="<h1>palmonas, edited</h1>",
                is_visible=page_shows("/src/App.jsx", "palmonas, edited"),
            ),
            Edit(
                tier="api",
                file="backend/src/app.js",
                old="response.json(settings.releaseInfo)",
                new="response.json({ ...settings.releaseInfo, edited: true })",
                is_visible=page_shows("/api/release", "edited"),
            ),
            Edit(
                tier="worker",
                file="backend/src/jobs.js",
                old="SET attempts = attempts + 1",
                new="SET attempts = attempts + 100",
                is_visible=lambda stack: count_job_attempts(stack) >= 100,
            ),
        ),
    ),
)
