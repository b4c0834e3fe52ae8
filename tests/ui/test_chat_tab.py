"""The chat: it streams, it stops, it keeps visitors apart, and a model's text does nothing."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.config import ChatSampling
from smolt.data import Turn
from smolt.errors import UserError
from smolt.serving.engine import Engine
from smolt.serving.lane import Lane
from smolt.ui.tabs.chat_tab import kept, page_of
from smolt.ui.talks import Said, Speakers
from tests.runs.test_listing import begun
from tests.tiny import WINDOW, tiny_model
from tests.ui.conftest import Opener, tab

PAYLOADS = (
    "<img src=/beacon onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    "![x](http://evil.example/x.png) [x](javascript:alert(1)) <iframe src=/beacon></iframe> ${alert(1)} {{7*7}}"
    "<svg onload=document.title='owned'> </p></div></article><style>body{display:none}</style> $$x$$ `</script>`"
)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines of the faces that are opened."""
    made: list[Engine] = []

    def make(*given: Any, **named: Any) -> Engine:
        made.append(Engine(*given, **named))
        return made[-1]

    monkeypatch.setattr("smolt.ui.face.Engine", make)
    return made


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding step takes 0.1 s, so that an answer is seen while it is written."""
    turn = Lane.turn

    def late(lane: Lane, *given: Any) -> None:
        time.sleep(0.1)
        turn(lane, *given)

    monkeypatch.setattr(Lane, "turn", late)


def ask(page: Any, question: str) -> None:
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")


def test_an_answer_streams_and_escape_stops_it(
    opened: Opener, page: Any, tmp_path: Path, engines: list[Engine], slow: None
) -> None:
    """It grows on the page; Escape ends it, the engine is free, and the text stays as it was."""
    tab(page, opened(str(tiny_model(tmp_path / "alpha"))), "Chat")
    ask(page, "What is the sea?")
    length = "document.querySelector('#talk-0 .turn.assistant .text')?.textContent.length"
    page.wait_for_function(f"{length} > 3")
    first = page.evaluate(length)
    page.wait_for_function(f"{length} > {first + 3}")
    page.keyboard.press("Escape")
    page.get_by_text("stopped", exact=True).wait_for()
    stopped = page.inner_text("#talk-0 .turn.assistant .text")
    for _ in range(100):
        if engines[0].active("alpha") == 0:
            break
        time.sleep(0.05)
    assert engines[0].active("alpha") == 0
    page.wait_for_timeout(500)
    assert page.inner_text("#talk-0 .turn.assistant .text") == stopped


def test_who_leaves_is_not_answered(
    opened: Opener, page: Any, tmp_path: Path, engines: list[Engine], slow: None
) -> None:
    """The page is closed in the middle of an answer: no answer is under way soon after."""
    tab(page, opened(str(tiny_model(tmp_path / "alpha"))), "Chat")
    ask(page, "What is the sea?")
    page.wait_for_function("document.querySelector('#talk-0 .turn.assistant .text')?.textContent.length > 3")
    assert engines[0].active("alpha") == 1
    page.goto("about:blank")
    for _ in range(60):
        if engines[0].active("alpha") == 0:
            break
        time.sleep(0.05)
    assert engines[0].active("alpha") == 0


def test_two_models_side_by_side_and_a_new_conversation(opened: Opener, page: Any, tmp_path: Path) -> None:
    paths = [str(tiny_model(tmp_path / name, seed=seed)) for seed, name in enumerate(("alpha", "beta"))]
    tab(page, opened(*paths), "Chat")
    page.click("#model-1 input")
    page.get_by_role("option", name="beta").click()
    ask(page, "Who?")
    for side in (0, 1):
        page.wait_for_selector(f"#talk-{side} .turn.assistant .text")
    assert page.inner_text("#talk-1 .turn.user .text") == "Who?"
    page.wait_for_timeout(1500)
    page.click("#new")
    page.wait_for_function("document.querySelectorAll('#tab-chat .turn').length == 0")


def test_two_visitors_do_not_mix(opened: Opener, page: Any, chromium: Any, tmp_path: Path) -> None:
    address = opened(str(tiny_model(tmp_path / "alpha")))
    other = chromium.new_context().new_page()
    for visitor, secret in ((page, "My secret is red."), (other, "My secret is blue.")):
        tab(visitor, address, "Chat")
        ask(visitor, secret)
        visitor.wait_for_selector("#talk-0 .turn.assistant .text")
    assert "blue" not in page.content()
    assert "red" not in other.inner_text("#talk-0")
    other.context.close()


def test_a_models_text_does_nothing(opened: Opener, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown as it is written: no element, no title, no request comes of it; outside the page the same text fires."""
    page.set_content(f"<title>quiet</title>{PAYLOADS}")
    page.wait_for_function("document.title == 'owned'")  # the control

    def hostile(*given: Any, **named: Any) -> Iterator[Said]:
        yield Said(PAYLOADS[:30], 5)
        yield Said(PAYLOADS, 9, "stop")

    monkeypatch.setattr(Speakers, "answer", hostile)
    asked: list[str] = []
    tab(page, opened(str(tiny_model(tmp_path / "alpha"))), "Chat")
    page.on("request", lambda request: asked.append(request.url))
    ask(page, PAYLOADS)
    page.wait_for_function("document.querySelectorAll('#talk-0 .text').length == 2")
    page.wait_for_timeout(500)
    assert page.title() == "smolt"
    assert [page.inner_text(f"#talk-0 .turn.{who} .text") for who in ("user", "assistant")] == [PAYLOADS] * 2
    assert page.evaluate("document.querySelectorAll('#talk-0 :is(img, script, iframe, svg, style, a)').length") == 0
    assert [url for url in asked if "beacon" in url or "evil" in url] == []
    assert page.is_visible("#question")


def test_errors_are_said_and_the_question_goes(opened: Opener, page: Any, tmp_path: Path) -> None:
    """A model that is not there, and a question longer than the window."""
    tab(page, opened(str(tmp_path / "nowhere"), str(tiny_model(tmp_path / "alpha"))), "Chat")
    ask(page, "Who?")
    page.locator("#talk-0 .alarm").wait_for()
    assert "nowhere" in page.inner_text("#talk-0 .alarm")
    page.click("#model-0 input")
    page.get_by_role("option", name="alpha").click()
    ask(page, "long " * 200)
    page.get_by_text(f"the model's window is {WINDOW}").wait_for()


def test_an_answer_is_that_of_smolt_chat(tmp_path: Path) -> None:
    """The same text piece by piece as in one go, by seed and copy; another copy is another answer."""
    path = str(tiny_model(tmp_path / "alpha"))
    speakers = Speakers(lambda: {"alpha": path}, Engine)
    assert speakers.names() == ["alpha"]
    turns, sampling = (Turn("user", "Who?"),), ChatSampling(max_tokens=20, seed=3)
    runs = [list(speakers.answer("me", "alpha", turns, sampling, copy=copy)) for copy in (0, 0, 1)]
    speakers.close()
    assert runs[0][-1].text == runs[1][-1].text != runs[2][-1].text
    assert runs[0][-1].reason in ("stop", "length")
    assert all(said.reason is None for said in runs[0][:-1])


def test_a_system_message_needs_a_template(tmp_path: Path) -> None:
    path = str(tiny_model(tmp_path / "plain", chat=False))
    speakers = Speakers(lambda: {"plain": path}, Engine)
    assert speakers.names() == ["plain"]
    with pytest.raises(UserError, match="no place for a system message"):
        next(speakers.answer("me", "plain", (Turn("user", "Who?"),), ChatSampling(), "Be kind."))
    speakers.close()


def test_what_was_stopped_before_a_word_is_forgotten() -> None:
    talk = (Turn("user", "Who?"),)
    assert kept(talk, Said("", 0, "cancelled")) == ()
    assert kept(talk, Said("I", 1, "cancelled")) == (*talk, Turn("assistant", "I"))
    assert "cut: it reached" in page_of(talk, "I", Said("I", 1, "length"))
    assert "oldest 2 exchanges" in page_of(talk, "I", Said("I", 1, "stop", 2))


def test_a_foreign_model_cannot_be_named(tmp_path: Path) -> None:
    speakers = Speakers(dict, Engine)
    assert speakers.names() == []
    with pytest.raises(UserError, match="no model of this face"):
        next(speakers.answer("me", "/etc", (Turn("user", "Who?"),), ChatSampling()))


def test_a_model_trained_since_is_offered(opened: Opener, page: Any, tmp_path: Path) -> None:
    """The runs directory is empty when the face starts; a run's model is there when the tab is opened again."""
    tab(page, opened(), "Chat")
    page.get_by_text("Name a model when you start it").wait_for()
    run = tmp_path / "runs" / "mine"
    begun(run).close()
    tiny_model(run / "model")
    page.get_by_role("tab", name="Runs", exact=True).click()
    page.get_by_role("tab", name="Chat", exact=True).click()
    page.wait_for_function("document.querySelector('#model-0 input').value == 'mine'")
    ask(page, "Who?")
    page.wait_for_selector("#talk-0 .turn.assistant .text")


def test_a_long_conversation_stays_at_its_end(
    opened: Opener, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of a long answer is on the screen while it grows."""

    def long(*given: Any, **named: Any) -> Iterator[Said]:
        text = ""
        for line in range(200):
            text += f"line {line}\n"
            yield Said(text, line)
        yield Said(f"{text}the end", 200, "stop")

    monkeypatch.setattr(Speakers, "answer", long)
    tab(page, opened(str(tiny_model(tmp_path / "alpha"))), "Chat")
    ask(page, "Count.")
    page.get_by_text("the end").wait_for()
    box, text = page.locator("#talk-0 .turns").bounding_box(), page.locator("#talk-0 .turn").last.bounding_box()
    assert box["height"] <= 0.6 * 900 + 1
    assert text["y"] + text["height"] <= box["y"] + box["height"] + 1
