"""Applications in examples/ for the end-to-end run: an edit of each tier with its visible effect, and the seed."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from .stack import Stack, eventually

PLATFORMS = ("docker", "kubernetes")


def shows(path: str, text: str) -> Callable[[Stack], bool]:
    """Return a check that the answer to a path contains a text."""
    return lambda stack: text in stack.get(path).text


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change in the source of a tier."""

    tier: str
    file: str
    old: str
    new: str
    seen: Callable[[Stack], bool]

    @contextmanager
    def applied(self, stack: Stack) -> Generator[None]:
        """Apply the change while the block runs."""
        file = stack.here / self.file
        text = file.read_text()
        assert text.count(self.old) == 1, f"{self.file}: it has to be clear what {self.old!r} is"
        file.write_text(text.replace(self.old, self.new))
        try:
            yield
        finally:
            # Vite may miss the second of two edits within one second. People do not edit that fast.
            time.sleep(1)
            file.write_text(text)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An application by its folder's name."""

    name: str
    seeded: Callable[[Stack], bool]
    edits: tuple[Edit, ...]
    """One edit for each tier of a slot; the api's edit also makes a new version."""

    def edit(self, tier: str) -> Edit:
        return next(edit for edit in self.edits if edit.tier == tier)


def customer(stack: Stack, name: str) -> requests.Session:
    """Return a session that is logged in to palmonas."""
    session = requests.Session()
    session.headers.update(stack.headers)
    session.post(f"{stack.url}/api/session", json={"customer": name}, timeout=10).raise_for_status()
    return session


def has_ordered(stack: Stack) -> bool:
    return bool(customer(stack, "Ada").get(f"{stack.url}/api/orders", timeout=10).json())


def tries_of_a_job(stack: Stack) -> int:
    """Return how often the worker has begun the job of an order, by its own record."""
    somebody = customer(stack, "e2e")
    [product, *_] = stack.get("/api/products").json()
    placed = somebody.post(f"{stack.url}/api/orders", json={"product": product["id"], "quantity": 1}, timeout=10).json()
    order: dict[str, int] = {}

    def begun() -> int:
        order.update(somebody.get(f"{stack.url}/api/orders/{placed['id']}", timeout=10).json())
        return order["attempts"]

    eventually(begun, 10)
    return order["attempts"]


EXAMPLES = (
    Example(
        name="about_me",
        seeded=shows("/api/projects", "flyology"),
        edits=(
            Edit(
                tier="web",
                file="web/src/app/page.tsx",
                old="<h1>About me</h1>",
                new="<h1>About me, edited</h1>",
                seen=shows("/", "About me, edited"),
            ),
            Edit(
                tier="api",
                file="api/portfolio/main.py",
                old='"slot": settings.SLOT}',
                new='"slot": settings.SLOT, "edited": "yes"}',
                seen=shows("/api/release", "edited"),
            ),
        ),
    ),
    Example(
        name="pmanager",
        seeded=shows("/api/projects", "From laptop to production"),
        edits=(
            Edit(
                tier="web",
                file="web/src/index.html",
                old="<title>pmanager</title>",
                new="<title>pmanager, edited</title>",
                seen=shows("/", "pmanager, edited"),
            ),
            Edit(
                tier="api",
                file="api/pmanager/main.py",
                old='FastAPI(title="pmanager"',
                new='FastAPI(title="pmanager, edited"',
                seen=shows("/api/openapi.json", "pmanager, edited"),
            ),
        ),
    ),
    Example(
        name="django_site",
        seeded=shows("/api/articles", "two-slots-one-switch"),
        edits=(
            Edit(
                tier="web",
                file="web/src/index.html",
                old="<h1>A site with articles</h1>",
                new="<h1>A site with edited articles</h1>",
                seen=shows("/", "edited articles"),
            ),
            Edit(
                tier="api",
                file="api/articles/api.py",
                old='"slot": SLOT}',
                new='"slot": SLOT, "edited": "yes"}',
                seen=shows("/api/release", "edited"),
            ),
        ),
    ),
    Example(
        name="palmonas",
        seeded=has_ordered,
        edits=(
            Edit(
                tier="web",
                file="frontend/src/App.jsx",
                old="<h1>palmonas</h1>",
                new="<h1>palmonas, edited</h1>",
                seen=shows("/src/App.jsx", "palmonas, edited"),
            ),
            Edit(
                tier="api",
                file="backend/src/app.js",
                old="response.json(settings.running)",
                new="response.json({ ...settings.running, edited: true })",
                seen=shows("/api/release", "edited"),
            ),
            Edit(
                tier="worker",
                file="backend/src/jobs.js",
                old="SET attempts = attempts + 1",
                new="SET attempts = attempts + 100",
                seen=lambda stack: tries_of_a_job(stack) >= 100,
            ),
        ),
    ),
)
