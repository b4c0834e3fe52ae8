"""The pages as a site: built without a warning, nothing fetched from elsewhere, every link and every name there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import smolt
from tests.docs.workshop import ROOT

DOCS = ROOT / "docs"
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "srcset", "object": "data"}
"""Elements that a browser loads something for by itself, and the attribute that names it."""


class Elements(HTMLParser):
    """The elements of a page, each with its attributes, and all anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.anchors = {given[name] for _, given in self.found for name in ("id", "name") if name in given}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def links(self, of: set[str]) -> Iterator[str]:
        """What these elements name that is no data within the page."""
        for tag, given in self.found:
            target = given.get("href" if tag == "a" else FETCHED.get(tag, ""), "")
            if tag in of and target and not target.startswith("data:"):
                yield target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the pages as they are; the build ends at the first warning."""
    build = pytest.importorskip("mkdocs.commands.build", reason="the extra docs is not installed")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    build.build(config)
    config.plugins.on_shutdown()
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Elements]:
    return {page: Elements(page) for page in sorted(site.rglob("*.html"))}


def test_make_docs_ends_at_a_dead_link(tmp_path: Path) -> None:
    """With the options of the Makefile; `--quiet` would have mkdocs count no warnings."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    (options,) = re.findall(r"/mkdocs (build .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    (tmp_path / "mkdocs.yml").write_text("site_name: one page\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[gone](gone.md)\n")
    command = [sys.executable, "-m", "mkdocs", *options.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "a link 'gone.md'" in done.stderr) == (1, True), done.stderr


def test_every_page_is_there(site: Path) -> None:
    """One of each page and notebook of docs, of each result on record, of README and changelog, two indexes and 404."""
    sources = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb"), *(ROOT / "bench" / "results").glob("*.md")]
    assert len(list(site.rglob("*.html"))) == len(sources) + 2 + 2 + 1


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Elements]) -> None:
    """No element of any page, and no style sheet, names an address."""
    fetched = {(page.name, link) for page, elements in pages.items() for link in elements.links(set(FETCHED))}
    assert len(fetched) > 100
    assert [found for found in fetched if urlsplit(found[1]).scheme or found[1].startswith("//")] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in next(iter(pages)).parent.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)]*", styles) == []


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Elements]) -> None:
    """Also those of raw HTML, which mkdocs does not look at, and of the navigation; an anchor is on its page."""
    for page, elements in pages.items():
        if page.name == "404.html":  # its links begin at the root of a server
            continue
        for link in elements.links({*FETCHED, "a"}):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{page.name}: {link}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.name}: {link}"


def test_the_navigation_is_the_index(pages: dict[Path, Elements], site: Path) -> None:
    """The index shows every page that docs/README.md links, and no others but those of the two folders."""
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {
        re.sub(r"\.(md|ipynb)$", ".html", link) for link in re.findall(r"^- \[.*?\]\((.+?)\)", index, re.MULTILINE)
    }
    folders = {link for link in linked if not link.endswith(".html")}
    shown = {
        given["href"]
        for tag, given in pages[site / "index.html"].found
        if tag == "a" and "md-nav__link" in given.get("class", "") and not given["href"].startswith("#")
    }
    assert folders == {"decisions", "../bench/results"}
    assert linked - folders <= shown
    rest = shown - linked - {"index.html", "./index.html"}
    assert {link.partition("/")[0] for link in rest} == {"decisions", "results"}


def test_every_public_name_is_described(pages: dict[Path, Elements], site: Path) -> None:
    """A heading for each name of `smolt.__all__`."""
    written = re.findall(
        r"^::: smolt\.(\w+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(written) == sorted(set(smolt.__all__) - {"__version__"})
    anchors = pages[site / "reference" / "api.html"].anchors
    assert [name for name in written if not any(anchor.endswith(f".{name}") for anchor in anchors)] == []
