"""The arena: sides that say nothing, votes that land in the label store, ratings that move."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.data import Source, Turn, load
from smolt.errors import UserError
from smolt.preferences.people import LabelStore
from smolt.preferences.people.exchange import Exporting, export_labels
from smolt.ui.tabs.arena_tab import side_of
from smolt.ui.tabs.matches import Match, drawn, vote_of
from tests.preferences.test_arena import voted
from tests.tiny import tiny_model
from tests.ui.conftest import Opener, tab

MATCH = Match("Be kind.", "Who?", "alpha", "beta", 7)


def test_sides_are_drawn_at_random() -> None:
    """Of 3 models each of the 6 ordered pairs comes 1,000 times of 6,000, within 4.5 standard deviations (130)."""
    chance = random.Random(0)
    found = Counter((match.left, match.right) for match in (drawn("Who?", "", "abc", chance) for _ in range(6000)))
    assert len(found) == 6
    assert all(abs(count - 1000) < 130 for count in found.values())


def test_what_cannot_be_played_is_said() -> None:
    with pytest.raises(UserError, match="two models"):
        drawn("Who?", "", ["a", "a"], random.Random(0))
    with pytest.raises(UserError, match="ask something"):
        drawn("  ", "", ["a", "b"], random.Random(0))
    with pytest.raises(UserError, match="word for word"):
        vote_of(MATCH, ("same", "same"), "left", "ann", 1.0)


@pytest.mark.parametrize("answers", [("yes", "no"), ("no", "yes"), ("x", "y"), ("y", "x")])
def test_a_vote_knows_who_answered(answers: tuple[str, str]) -> None:
    """Whichever order the pair stores its answers in, the choice is the left answer's and alpha's."""
    pair, vote = vote_of(MATCH, answers, "left", "ann", 2.5)
    chosen = pair.first if vote.label.choice == "first" else pair.second
    author = vote.first if vote.label.choice == "first" else vote.second
    assert (chosen, author) == (answers[0], "alpha")
    assert {vote.first, vote.second} == {"alpha", "beta"}
    assert vote.label.left == vote.label.choice
    assert pair.context == (Turn("system", "Be kind."), Turn("user", "Who?"))
    assert vote_of(MATCH, answers, "tie", "ann", 2.5)[1].label.choice == "tie"


def test_an_answer_is_text() -> None:
    page = side_of("A", "<img src=x onerror=alert(1)> [a](http://x) \x1b", "<b>n")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; [a](http://x) \\x1b" in page
    assert "&lt;b&gt;n" in page


def models(folder: Path) -> list[str]:
    return [str(tiny_model(folder / name, seed=seed)) for seed, name in enumerate(("better", "worse"))]


def test_a_vote_lands_in_the_store_and_moves_the_ratings(opened: Opener, page: Any, tmp_path: Path) -> None:
    """By keyboard alone: ask, compare blind, vote; names come afterwards, and the vote exports as a preference."""
    store = tmp_path / "runs" / "labels.sqlite"
    store.parent.mkdir()
    with LabelStore(store) as before:
        for number in range(4):
            before.record_vote(*voted(number, number < 3))
    tab(page, opened(*models(tmp_path)), "Arena")
    page.get_by_text("4 votes of 1 person").wait_for()
    rated = page.inner_text("#ratings")
    page.fill("#arena-question textarea", "Who are <you>?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#vote-left:enabled")
    blind = page.inner_text("#arena-A") + page.inner_text("#arena-B") + page.inner_text("#arena-remark")
    assert "better" not in blind.replace("Which is better?", "")
    assert "worse" not in blind
    page.keyboard.press("1")
    page.get_by_text("Saved.").wait_for()
    assert page.is_disabled("#vote-left")
    page.get_by_text("5 votes of 2 people").wait_for()
    assert page.inner_text("#ratings") != rated
    with LabelStore(store) as after:
        vote = after.votes()[-1]
        assert (vote.label.annotator, {vote.first, vote.second}) == ("me", {"better", "worse"})
        winner = vote.first if vote.label.choice == "first" else vote.second
        export_labels(after, tmp_path / "out.jsonl", Exporting())
    assert page.inner_text("#arena-A header").split() == ["A", winner]
    preference = load(Source(str(tmp_path / "out.jsonl")), "preferences").records[-1]
    assert preference.context == (Turn("user", "Who are <you>?"),)
    shown = page.inner_text("#arena-A .text")
    assert shown.strip()[:1] == preference.chosen.strip()[:1] or "\\x" in shown
    page.keyboard.press("2")  # the round is over: nothing more is stored
    page.wait_for_timeout(500)
    with LabelStore(store) as after:
        assert len(after.votes()) == 5


def test_one_model_alone_has_no_opponent(opened: Opener, page: Any, tmp_path: Path) -> None:
    tab(page, opened(models(tmp_path)[0]), "Arena")
    page.fill("#arena-question textarea", "Who?")
    page.keyboard.press("Enter")
    page.get_by_text("the arena needs two models").wait_for()
