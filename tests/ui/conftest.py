"""A face that answers on this machine, and a real browser that looks at it."""

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
PATIENCE = 30_000
"""Milliseconds after which the browser says that something did not come."""

Opener = Callable[..., str]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Starts a face with the fields of a `Face`, in this process; its address. What was started ends with the test."""
    pytest.importorskip("gradio", reason="the extra ui is not installed")
    from smolt.ui.environment import Face, own_environment

    with contextlib.ExitStack() as held:
        held.enter_context(own_environment())

        def start(*models: str, **fields: Any) -> str:
            runs = fields.pop("runs", tmp_path / "runs")
            store = fields.pop("store", runs / "labels.sqlite")
            return str(held.enter_context(serving(Face(models, runs, store, port=0, **fields))))

        yield start
    gc.collect()  # Gradio's event loops, now: their ends, in the middle of somebody's ast.parse, upset Python 3.11


@contextlib.contextmanager
def serving(face: Any) -> Iterator[str]:
    """The address of a face that is served by a thread."""
    from smolt.serving.address import bound, port_of, reached_at
    from smolt.serving.listening import settings_for
    from smolt.ui.application import application
    from smolt.ui.server import names_of
    from tests.answering import answering

    with (
        bound(face.host, [face.port]) as listening,
        application(face, names_of(face, port_of(listening))) as guarded,
        answering(settings_for(guarded), listening),
    ):
        yield reached_at(face.host, listening)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real Chromium, driven by Playwright; for one module, as its event loop runs in the thread of the tests."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (the extra dev)")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page of 1,280 by 900 pixels that asks nobody but this machine, and whose errors end the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    own = ("http://127.0.0.1:", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert errors == []


def tab(page: Any, address: str, name: str) -> None:
    """Open the page at a tab."""
    page.goto(address)
    page.get_by_role("tab", name=name, exact=True).click()
