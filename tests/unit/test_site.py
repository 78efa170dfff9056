"""Tests of the documentation site: navigation, the pages prepared for Sphinx, the API page, and pinned packages.

These tests do not need Sphinx.
"""

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi import Output
from pydantic import BaseModel

import components
from ci.site import api, pages

from .program import ROOT

DOCS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
PUBLIC = components.__all__
FORWARD = {"Output": Output, "T": Any}
"""Names in Pulumi's type `Input` → types. Python can't resolve these names outside Pulumi's module."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the pages for Sphinx into a folder and return the folder."""
    folder = tmp_path_factory.mktemp("site") / "source"
    pages.stage(folder)
    return folder


# ---------------------------------------------------------------------- navigation


def test_navigation_of_the_site_lists_every_page_of_docs_once() -> None:
    pages_of_docs = [page for page in pages.pages() if page.startswith("docs/")]
    assert sorted(pages_of_docs) == sorted(DOCS), "add the page to a table of docs/README.md"


def test_navigation_of_the_site_has_only_existing_pages() -> None:
    assert [page for page in pages.pages() if not (ROOT / page).is_file()] == []


def test_navigation_of_the_site_has_a_section_for_each_kind_of_page() -> None:
    parts = pages.navigation()
    assert list(parts) == ["", *pages.PARTS.values(), "Project"]
    assert parts["Tutorial"] == ["docs/tutorial.md"]
    assert {page for page in DOCS if page.startswith("docs/how-to/")} <= {*parts["How-to guides"]}
    assert {page for page in DOCS if page.startswith("docs/reference/")} <= {*parts["Reference"]}
    assert {page for page in DOCS if page.startswith("docs/adr/")} == {*parts["Decision records"]}


def test_navigation_of_the_site_has_the_readmes_of_the_examples() -> None:
    assert {"examples/README.md", "examples/about_me/README.md"} <= {*pages.navigation()["Project"]}


# ---------------------------------------------------------------------- pages as Sphinx reads them


def test_every_link_in_a_page_of_the_site_leads_to_a_file_of_the_site(source: Path) -> None:
    count = 0
    for page in source.rglob("*.md"):
        for path in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in path:
                count += 1
                assert (page.parent / path).is_file(), f"{page.relative_to(source)}: {path}"
    assert count > 100


def test_every_page_of_the_site_has_a_title(source: Path) -> None:
    for page in source.rglob("*.md"):
        assert re.search(r"^# \S", page.read_text(), re.MULTILINE), page.name


def test_readme_becomes_the_index_page_of_the_site_with_the_navigation(source: Path) -> None:
    text = (source / "index.md").read_text()
    assert text.startswith("# Tiers\n")
    assert "```{toctree}\n:hidden:\n:caption: Tutorial\n\ndocs/tutorial.md\n```" in text
    assert not (source / "README.md").exists()


def test_link_to_a_folder_leads_to_the_readme_of_the_folder_or_becomes_plain_text_on_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "REPOSITORY", tmp_path)
    monkeypatch.setattr(pages, "pages", lambda: ("README.md", "pages/a.md", "pages/adr/README.md"))
    (tmp_path / "pages/adr").mkdir(parents=True)
    (tmp_path / "ci").mkdir()
    (tmp_path / "pages/a.md").write_text("# A\n[b](adr) [`c`](../ci) [d](../README.md#e) [f](#g) [h](https://i/j)\n")
    assert pages.sphinx_text("pages/a.md") == (
        "# A\n[b](adr/README.md) `c` [d](../index.md#e) [f](#g) [h](https://i/j)\n"
    )


def test_pages_in_docs_contain_no_syntax_that_only_sphinx_understands() -> None:
    for page in pages.pages():
        assert not re.search(r"^(```|:::)\s*\{|^\(.+\)=$", (ROOT / page).read_text(), re.MULTILINE), page


# ---------------------------------------------------------------------- API


def test_every_public_name_exists_with_a_docstring() -> None:
    for name in PUBLIC:
        assert (getattr(components, name).__doc__ or "").strip(), name


def test_api_page_lists_exactly_the_public_names() -> None:
    page = (ROOT / api.PAGE).read_text()
    assert api.with_table(page) == page, "run `make documents`"
    assert sorted(re.findall(r"^\| `tiers\.(\w+)`", page, re.MULTILINE)) == sorted(PUBLIC)
    for line in re.findall(r"\bfrom tiers import (?:\(([^)]*)\)|(.+))", page):
        assert {name.strip() for name in "".join(line).split(",") if name.strip()} <= {*PUBLIC}


def test_site_documents_every_public_name_once() -> None:
    documented = re.findall(r"^\.\. auto\w+:: (\w+)$", api.directives(), re.MULTILINE)
    assert sorted(documented) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_of_public_classes_and_functions_have_only_public_types(name: str) -> None:
    public = [getattr(components, name) for name in PUBLIC]
    hints = {type_ for hint in hints_of(getattr(components, name)) for type_ in nested_types(hint)}
    own_types = [type_ for type_ in hints if str(getattr(type_, "__module__", "")).startswith("components")]
    assert [type_ for type_ in own_types if type_ not in public] == [], (
        "add it to components/__init__.py, or use a public type"
    )


def hints_of(obj: Any) -> Iterator[Any]:
    """Yield the types in the signatures that the site shows for `obj`.

    The site shows no signatures of pydantic models, and no signatures of members without a docstring.
    """
    if not isinstance(obj, type):
        yield from typing.get_type_hints(obj, localns=FORWARD).values()
    elif not issubclass(obj, BaseModel):
        yield from inspect.get_annotations(obj, eval_str=True).values()
        for name, member in vars(obj).items():
            function = getattr(member, "fget", getattr(member, "__func__", member))
            if inspect.isfunction(function) and (name == "__init__" or (name[0] != "_" and function.__doc__)):
                yield from typing.get_type_hints(function, localns=FORWARD).values()


def nested_types(hint: Any) -> Iterator[Any]:
    """Yield a type and all types inside this type. Example: `list[int]` yields `list[int]` and `int`."""
    yield from (type_ for part in hint for type_ in nested_types(part)) if isinstance(hint, list) else (hint,)
    for part in typing.get_args(hint):
        yield from nested_types(part)


def test_docstring_summary_is_escaped_for_one_table_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shop:
        """Return `<a>` or <b>,
        with a | between.

        More."""

    monkeypatch.setattr(components, "__all__", ["Shop"], raising=False)
    monkeypatch.setattr(components, "Shop", Shop, raising=False)
    page = api.with_table("# A\n\n## Public names\n\nold\n\n## B\n")
    assert page == (
        "# A\n\n## Public names\n\n| name | kind | what it is |\n|---|---|---|\n"
        "| `tiers.Shop` | type | Return `<a>` or &lt;b>, with a \\| between. |\n\n## B\n"
    )


# ---------------------------------------------------------------------- packages


def test_packages_pinned_for_both_the_site_and_development_have_the_same_versions() -> None:
    site, development = (pins(f"requirements-{name}.txt") for name in ("docs", "dev"))
    shared = site.keys() & development.keys()
    assert shared
    assert {name: site[name] for name in shared} == {name: development[name] for name in shared}


def test_sphinx_is_pinned_for_the_site_only() -> None:
    assert "sphinx" in pins("requirements-docs.txt")
    assert "sphinx" not in pins("requirements-dev.txt")


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda file: file.name)
def test_pinned_packages_have_hashes_and_no_index_address(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block.partition(" ")[0]


def pins(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE))
