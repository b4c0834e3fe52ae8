"""What `make docs` does to the pages of docs: their order, links out of docs, a notebook, the names of the package.

The pages link one another as files of the repository, so that they can be read there. On the site the navigation is
what docs/README.md lists, a folder that it links is a section with an index, and links lead to where their files went.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import smolt

ROOT = Path(__file__).resolve().parent
DOCS = ROOT / "docs"
ELSEWHERE = {
    "README.md": "about.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "bench/results": "results",
}
"""What the site has from outside docs: path in the repository -> path on the site."""

_LISTED = re.compile(r"^- \[(.+?)\]\((.+?)\)", re.MULTILINE)
_LINK = re.compile(r'(\]\(|\b(?:src|srcset|href)=")([^\s)"#:]+)')
_NAME = re.compile(r"^::: smolt\.(\w+)$", re.MULTILINE)


def listed() -> dict[str, dict[str, Path]]:
    """What docs/README.md lists: heading -> the name of a link -> its file or folder."""
    _, *parts = re.split(r"^## (.+)$", (DOCS / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = zip(parts[::2], parts[1::2], strict=True)
    return {heading: {name: (DOCS / link).resolve() for name, link in _LISTED.findall(text)} for heading, text in found}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: a section for each heading of docs/README.md."""
    sections = [{heading: [entry(*item) for item in items.items()]} for heading, items in listed().items()]
    config.nav = [{"All pages": "README.md"}, *sections]
    return config


def entry(name: str, target: Path) -> dict[str, Any]:
    """A page, or a section with the index and all pages of a folder."""
    if target.is_dir():
        return {name: [f"{site_path(target)}/index.md", *map(site_path, sorted(target.glob("*.md")))]}
    return {name: site_path(target)}


def site_path(path: Path) -> str:
    """Where a file or folder of the repository went; a notebook is a page."""
    place = path.relative_to(ROOT).as_posix()
    for outside, inside in ELSEWHERE.items():
        if place == outside or place.startswith(f"{outside}/"):
            return inside + place.removeprefix(outside)
    return place.removeprefix("docs/").replace(".ipynb", ".md")


def in_repository(uri: str) -> Path:
    """The folder that the links of a page of the site start from."""
    for outside, inside in ELSEWHERE.items():
        if uri == inside or uri.startswith(f"{inside}/"):
            return (ROOT / (outside + uri.removeprefix(inside))).parent
    return (DOCS / uri).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """With what lies elsewhere, the notebooks as pages, and an index for each folder that is a section."""
    for place in map(ROOT.joinpath, ELSEWHERE):
        for path in place.iterdir() if place.is_dir() else [place]:
            files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    for path in DOCS.rglob("*.ipynb"):
        files.append(File.generated(config, site_path(path), content="\n\n".join(cells_of(path))))
    for name, path in (item for items in listed().values() for item in items.items() if item[1].is_dir()):
        files.append(File.generated(config, f"{site_path(path)}/index.md", content=index(name, path)))
    return files


def index(name: str, folder: Path) -> str:
    """A page that links all pages of a folder by their headings."""
    pages = sorted(folder.glob("*.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for page in pages]
    return "\n".join([f"# {name}\n", *(f"- [{title}]({page.name})" for title, page in zip(titles, pages, strict=True))])


def cells_of(notebook: Path) -> Iterator[str]:
    """A notebook as Markdown: its text, its code, and what that gave when it was last run."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = "".join(output.get("text", data.get("text/plain", [])))
            picture = data.get("image/png")
            yield f"![](data:image/png;base64,{picture.strip()})" if picture else f"```text\n{text.rstrip()}\n```"
    yield f"This page is [a notebook]({notebook.name})."


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links to where files went, and `::: smolt.NAME` as the place where the name is defined."""
    folder = in_repository(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return found[0]
        uri = f"{site_path(target)}/index.md" if target.is_dir() else site_path(target)
        return found[1] + posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return _NAME.sub(defined, _LINK.sub(moved, markdown))


def defined(found: re.Match[str]) -> str:
    """The directive for a name of `import smolt`, under the name that users write."""
    name, home = found[1], smolt._HOMES[found[1]]
    own = (ROOT / "src" / home.replace(".", "/") / name).with_suffix(".py")
    place = f"{home}.{name}.{name}" if own.is_file() else f"{home}.{name}"
    return f"::: {place}\n    options:\n      heading: smolt.{name}"
