"""Votes in the label store: what they say of the models, and that they are labels like any other."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.data import Preference, Source, Turn, load
from smolt.errors import UserError
from smolt.preferences.people import Label, LabelStore, Vote, pair_of
from smolt.preferences.people.annotators import figures_of
from smolt.preferences.people.arena import ratings_of, vote_panel
from smolt.preferences.people.exchange import Exporting, export_labels
from smolt.preferences.people.nouns import BlindPair, Choice
from smolt.statistics import Measure


def round_of(number: int) -> BlindPair:
    return pair_of(Preference((Turn("user", f"Question {number}?"),), f"good {number}", f"bad {number}"))


def voted(number: int, good: bool, choice: Choice | None = None, annotator: str = "ann") -> tuple[BlindPair, Vote]:
    """A vote for the answer of the model `better` (good), or for that of `worse`."""
    pair = round_of(number)
    first = pair.first.startswith("good")
    chosen: Choice = choice or ("first" if first == good else "second")
    arms = ("better", "worse") if first else ("worse", "better")
    return pair, Vote(Label(pair.id, annotator, chosen, "first", 2.0), *arms)


def filled(path: Path, good: int, bad: int) -> LabelStore:
    store = LabelStore(path)
    for number in range(good + bad):
        assert store.record_vote(*voted(number, number < good))
    return store


def test_votes_become_ratings_whichever_answer_stood_first(tmp_path: Path) -> None:
    """30 of 40 for one model: 190.85 points apart (400 log10 3), told apart."""
    with filled(tmp_path / "votes.sqlite", 30, 10) as store:
        found = ratings_of(store.votes())
        panel = vote_panel(store.votes())
    points = {one.arm: one.points.value for one in found.arms if one.points}
    assert points["better"] - points["worse"] == pytest.approx(190.8485, abs=1e-3)
    assert panel.sentences == ("40 votes of 1 person.",)
    assert isinstance(panel.tables[0].rows[0][1], Measure)
    assert panel.tables[0].rows[0][2:] == (40, 30, 0)


def test_few_votes_are_called_few() -> None:
    votes = [voted(number, number < 3)[1] for number in range(4)]
    assert vote_panel(votes).sentences[1] == (
        "Not enough votes to tell better from worse: the difference's interval holds 0."
    )
    assert vote_panel(votes[:3]).sentences[1:] == (
        "Not enough votes to rate better: it won all 3.",
        "Not enough votes to rate worse: it lost all 3.",
    )
    assert vote_panel([]).sentences == ("No votes yet.",)


def test_ties_count_and_skips_do_not() -> None:
    votes = [voted(1, True, "tie")[1], voted(2, True, "both_bad")[1], voted(3, True, "skip")[1]]
    found = ratings_of(votes)
    assert [(one.votes, one.won, one.even) for one in found.arms] == [(2, 0, 2), (2, 0, 2)]
    assert "1 of them for neither" in vote_panel(votes).sentences[0]


def test_a_vote_is_a_label_and_trains(tmp_path: Path) -> None:
    """Exported as preferences: 3 rows, the answer voted for is chosen, and they load as DPO's data."""
    with filled(tmp_path / "votes.sqlite", 2, 1) as store:
        assert len(store.labels()) == 3
        assert figures_of(store).labelled == 3
        counts = export_labels(store, tmp_path / "out.jsonl", Exporting())
    assert counts["written"] == 3
    records = load(Source(str(tmp_path / "out.jsonl")), "preferences").records
    assert [record.chosen for record in records] == ["good 0", "good 1", "bad 2"]


def test_one_vote_a_person_and_round(tmp_path: Path) -> None:
    """The second vote of the same person on the same pair changes nothing; another's counts."""
    with LabelStore(tmp_path / "votes.sqlite") as store:
        assert store.record_vote(*voted(1, True))
        assert not store.record_vote(*voted(1, False))
        assert store.record_vote(*voted(1, False, annotator="bob"))
        assert [vote.label.annotator for vote in store.votes()] == ["ann", "bob"]
        store.undo("bob", {round_of(1).id})
        assert len(store.votes()) == 1


def test_labels_and_votes_share_a_store_and_older_ones_have_none(tmp_path: Path) -> None:
    pair = round_of(1)
    with LabelStore(tmp_path / "labels.sqlite") as store:
        store.add_pairs([pair])
        store.record(Label(pair.id, "ann", "first"))
        assert store.votes() == []
        store.record_vote(*voted(2, True))
        assert (len(store.labels()), len(store.votes())) == (2, 1)


def test_a_changed_author_is_damage(tmp_path: Path) -> None:
    filled(tmp_path / "votes.sqlite", 1, 0).__exit__()
    with sqlite3.connect(tmp_path / "votes.sqlite") as database:
        database.execute("UPDATE authors SET first = second, second = first")
    database.close()
    with pytest.raises(UserError, match="vote 1: is not as it was stored"):
        LabelStore(tmp_path / "votes.sqlite")


def test_the_export_says_nothing_of_models(tmp_path: Path) -> None:
    with filled(tmp_path / "votes.sqlite", 1, 1) as store:
        export_labels(store, tmp_path / "out.jsonl", Exporting())
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["chosen", "id", "labels", "prompt", "rejected"]] * 2


def test_label_stats_says_the_ratings_too(tmp_path: Path) -> None:
    """The same figures in the terminal and as JSON; without votes nothing is said of them."""
    filled(tmp_path / "votes.sqlite", 30, 10).__exit__()
    said = CliRunner().invoke(app, ["label", "stats", "--store", str(tmp_path / "votes.sqlite")])
    assert "40 votes of 1 person." in said.output
    done = CliRunner().invoke(app, ["label", "stats", "--store", str(tmp_path / "votes.sqlite"), "--json"])
    arms = json.loads(done.stdout)["arena"]["arms"]
    assert [(arm["arm"], arm["won"]) for arm in arms] == [("better", 30), ("worse", 10)]
    assert arms[0]["points"]["value"] - arms[1]["points"]["value"] == pytest.approx(190.8485, abs=1e-3)
    with LabelStore(tmp_path / "none.sqlite") as store:
        store.add_pairs([round_of(1)])
    done = CliRunner().invoke(app, ["label", "stats", "--store", str(tmp_path / "none.sqlite"), "--json"])
    assert "arena" not in json.loads(done.stdout)
