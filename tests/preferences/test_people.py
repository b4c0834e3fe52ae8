"""Human labels without a terminal: pairs, queue, session, store, figures, export and import."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolt.data import Preference, Source, Turn, load
from smolt.errors import UserError
from smolt.preferences.people import BlindPair, Label, LabelStore, Session, Side, left_side, make_queue, pair_of
from smolt.preferences.people.annotators import figures_of, label_panel
from smolt.preferences.people.exchange import ExportFormat, Exporting, export_labels, verdict
from smolt.preferences.people.importing import import_labels, read_labels
from smolt.preferences.people.nouns import Choice
from smolt.runs import StorageError


def preference(number: int, chosen: str = "yes", rejected: str = "no, no") -> Preference:
    return Preference((Turn("user", f"Question {number}?"),), f"{chosen} {number}", f"{rejected} {number}")


def pairs(count: int, start: int = 0, gold: bool = False) -> list[BlindPair]:
    return [pair_of(preference(number), gold) for number in range(start, start + count)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "labels.sqlite") as opened:
        yield opened


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pair_is_its_content_not_its_label() -> None:
    """Swapping chosen and rejected gives the same pair; another question or answer gives another."""
    there = preference(1)
    back = Preference(there.context, there.rejected, there.chosen)
    assert pair_of(there) == pair_of(back)
    assert pair_of(there).id != pair_of(preference(2)).id
    for record in (there, back):
        pair = pair_of(record, gold=True)
        assert (pair.first if pair.known == "first" else pair.second) == record.chosen


def test_the_order_of_a_pair_says_nothing_of_its_texts() -> None:
    """Answers that begin with "no" come first in 1,000 of 2,000 pairs +- 4.5 sd, though they sort before "yes"."""
    assert abs(sum(pair.first.startswith("no") for pair in pairs(2000)) - 1000) < 101


def test_sides_are_a_fair_coin_for_each_annotator() -> None:
    """Of 2,000 pairs the first answer stands left 1,000 +- 4.5 sd (22.4); annotators and seeds agree on about half."""
    names = pairs(2000)
    sides = {key: [left_side(pair, *key) for pair in names] for key in ((0, "ann"), (0, "bob"), (1, "ann"))}
    for drawn in sides.values():
        assert abs(drawn.count("first") - 1000) < 101
    for other in ((0, "bob"), (1, "ann")):
        same = sum(a == b for a, b in zip(sides[0, "ann"], sides[other], strict=True))
        assert abs(same - 1000) < 101
    assert [left_side(pair, 0, "ann") for pair in names] == sides[0, "ann"]


def test_the_side_does_not_follow_the_label_in_the_file() -> None:
    """Whichever answer the data call chosen, 500 of 1,000 +- 4.5 sd stand left."""
    left = 0
    for number in range(1000):
        record = preference(number, *(("yes", "no") if number % 2 else ("no", "yes")))
        pair = pair_of(record)
        left += (pair.first if left_side(pair, 0, "ann") == "first" else pair.second) == record.chosen
    assert abs(left - 500) < 72


def test_the_order_is_shared_and_gold_comes_at_its_rate() -> None:
    """One gold question in every 10 entries at a place of the annotator's own; ordinary pairs in the same order."""
    gold = pairs(20, start=1000, gold=True)
    queues = {name: make_queue(pairs(90), gold, 0.1, 0, name)[0] for name in ("ann", "bob")}
    for queue in queues.values():
        places = [place for place, pair in enumerate(queue) if pair.known is not None]
        assert [place // 10 for place in places] == list(range(10))
        assert len(queue) == 100
    plain = {name: [pair.id for pair in queue if pair.known is None] for name, queue in queues.items()}
    assert plain["ann"] == plain["bob"] != [pair.id for pair in pairs(90)]
    assert [pair.id for pair in queues["ann"]] != [pair.id for pair in queues["bob"]]


def test_queue_leaves_out_what_cannot_be_labelled() -> None:
    """Two equal answers, a pair twice, and a gold question among the pairs: 4 of 7 rows are asked as ordinary ones."""
    same = pair_of(Preference((Turn("user", "?"),), "a", "a"))
    known = pairs(1, gold=True)
    queue, left_out = make_queue([*pairs(5), pairs(5)[1], same], known, 0.0, 0, "ann")
    assert (sorted(pair.id for pair in queue), left_out) == (sorted(pair.id for pair in pairs(4, start=1)), 1)
    with pytest.raises(UserError, match="nothing to label: of 1 pairs 1 have two equal answers"):
        make_queue([same], [], 0.0, 0, "ann")
    with pytest.raises(UserError, match=r"gold rate: 0\.6 is neither 0 nor between 0\.001 and 0\.5"):
        make_queue(pairs(1), [], 0.6, 0, "ann")


@given(st.integers(1, 60), st.integers(0, 30), st.floats(0.001, 0.5))
def test_every_pair_is_asked_once(plain: int, gold: int, rate: float) -> None:
    queue, _ = make_queue(pairs(plain), pairs(gold, start=500, gold=True), rate, 3, "ann")
    asked = [pair.id for pair in queue]
    assert len(set(asked)) == len(asked)
    assert {pair.id for pair in queue if pair.known is None} == {pair.id for pair in pairs(plain)}


def test_choices_are_stored_in_the_pairs_own_order(store: LabelStore) -> None:
    """A left or right key becomes the answer that stood there, with the side and the seconds."""
    clock = Clock()
    session = Session(store, "ann", pairs(20), seed=0, clock=clock)
    for number in range(20):
        left, right = session.sides()
        pair = session.current
        assert pair is not None and {left, right} == {pair.first, pair.second}
        clock.now += 2.5
        session.choose("left" if number % 2 else "right")
        label = store.labels()[-1]
        chosen = pair.first if label.choice == "first" else pair.second
        assert chosen == (left if number % 2 else right)
        assert (label.left == "first") == (left == pair.first)
        assert label.seconds == 2.5
    assert session.current is None
    with pytest.raises(ValueError, match="every pair of the queue is labelled"):
        session.choose("tie")


def test_undo_goes_back_over_a_restart_and_keeps_the_row(store: LabelStore, tmp_path: Path) -> None:
    session = Session(store, "ann", pairs(3), seed=0)
    session.choose("left")
    session.choose("tie")
    assert session.undo()
    assert (session.current, session.done) == (pairs(3)[1], 1)
    again = Session(store, "ann", pairs(3), seed=0)
    assert again.current == pairs(3)[1]
    assert again.undo() and not again.undo()
    assert again.current == pairs(3)[0]
    assert store.labels() == []
    assert store.undone() == {"ann": 2}
    rows = sqlite3.connect(tmp_path / "labels.sqlite").execute("SELECT choice, undone IS NULL FROM labels").fetchall()
    assert [row[1] for row in rows] == [0, 0]


def test_undo_takes_back_only_ones_own(store: LabelStore) -> None:
    ann, bob = (Session(store, name, pairs(2), seed=0) for name in ("ann", "bob"))
    ann.choose("left")
    bob.choose("skip")
    assert ann.undo()
    assert [label.annotator for label in store.labels()] == ["bob"]


def test_skipped_pairs_come_again_when_asked(store: LabelStore) -> None:
    session = Session(store, "ann", pairs(3), seed=0)
    session.choose("skip")
    session.choose("tie")
    assert Session(store, "ann", pairs(3), seed=0).current == pairs(3)[2]
    assert store.forget_skips("ann") == 1
    assert Session(store, "ann", pairs(3), seed=0).current == pairs(3)[0]


def test_two_windows_of_one_annotator_give_one_label(store: LabelStore, tmp_path: Path) -> None:
    with LabelStore(tmp_path / "labels.sqlite") as second:
        here, there = (Session(opened, "ann", pairs(2), seed=0) for opened in (store, second))
        assert here.choose("tie") is not None
        assert there.choose("both_bad") is None
        assert there.current == pairs(2)[1]
        assert [label.choice for label in second.labels()] == ["tie"]


def test_store_is_durable_by_its_settings(store: LabelStore, tmp_path: Path) -> None:
    """Write-ahead log in the file, synchronous 2 (FULL) on the connection."""
    assert store.pragma("synchronous") == 2
    assert sqlite3.connect(tmp_path / "labels.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a database at all" * 50, "file is not a database"),
        ("CREATE TABLE t (x)", "is another program's database"),
        ("PRAGMA application_id = 1936551028; CREATE TABLE t (x); PRAGMA user_version = 9", "by a newer smolt"),
    ],
)
def test_other_files_are_refused(content: bytes | str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.executescript(content)
        connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=reason):
        LabelStore(path)
    assert path.read_bytes() == before


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; `smolt label PAIRS --store"):
        LabelStore(tmp_path / "none.sqlite", create=False)
    with pytest.raises(UserError, match=r"the directory .* does not exist"):
        LabelStore(tmp_path / "none" / "labels.sqlite")


def test_a_full_disk_loses_no_acknowledged_label(store: LabelStore, tmp_path: Path) -> None:
    """The store may grow by no page more: StorageError (74), the label is not counted, the earlier ones stay."""
    long = [pair_of(Preference((), "x" * 9000 + str(number), "y")) for number in range(50)]
    session = Session(store, "ann", pairs(5), seed=0)
    session.choose("tie")
    store.pragma(f"max_page_count = {store.pragma('page_count')}")
    with pytest.raises(StorageError) as caught:
        store.add_pairs(long)
    assert caught.value.exit_code == 74
    with LabelStore(tmp_path / "labels.sqlite") as again:
        assert len(again.labels()) == 1
        assert len(again.pairs()) == 5


def opposite(side: Side) -> Side:
    return "second" if side == "first" else "first"


def choices(letters: str) -> list[Choice]:
    """f first, s second, t tie, b both bad, - skip."""
    return [dict(zip("fstb-", get_args(Choice), strict=True))[letter] for letter in letters]


def labelled(store: LabelStore, made: dict[str, Sequence[Choice]]) -> list[BlindPair]:
    """Each annotator's choices for the first so many pairs."""
    wanted = pairs(max(map(len, made.values())))
    store.add_pairs(wanted)
    for name, chosen in made.items():
        store.record_all(
            Label(pair.id, name, choice, "first", 3.0) for pair, choice in zip(wanted, chosen, strict=False)
        )
    return wanted


def test_agreement_by_hand(store: LabelStore) -> None:
    """10 pairs in common, a skip left out: 7 the same.

    Ann: 5 first, 4 second, 1 tie; Bob: 4 first, 5 second, 1 tie. Chance: (20 + 20 + 1) / 100 = 0.41, so kappa is
    (0.7 - 0.41) / 0.59 = 0.491525.
    """
    labelled(store, {"ann": choices("fffffsssst-"), "bob": choices("fffsssssftt")})
    (agreement,) = figures_of(store).agreements
    assert (agreement.a, agreement.b, agreement.n) == ("ann", "bob", 10)
    assert agreement.same is not None and agreement.same.value == 0.7
    assert agreement.kappa is not None and agreement.kappa.value == pytest.approx(0.491525, abs=1e-6)
    assert "kappa 0.49" in label_panel(figures_of(store)).sentences[1]


def test_habits_by_hand(store: LabelStore) -> None:
    """30 of 40 labels for the left answer, and of 20 gold questions 8 right, 8 for the left; "no, no" is the longer."""
    wanted = labelled(store, {"ann": choices("f" * 30 + "s" * 10 + "-")})
    gold = pairs(20, start=200, gold=True)
    store.add_pairs(gold)
    for number, pair in enumerate(gold):
        right, wrong = (pair.known, opposite(pair.known)) if pair.known else ("first", "second")
        choice = right if number < 8 else wrong
        store.record(Label(pair.id, "ann", choice, choice if number < 8 else opposite(choice)))
    (ann,) = figures_of(store).habits
    assert (ann.labels, ann.asked, ann.skips, ann.seconds) == (60, 20, 1, 3.0)
    assert ann.gold is not None and (ann.gold.value, ann.gold.n) == (0.4, 20)
    assert ann.left is not None and (ann.left.value, ann.left.n) == (38 / 60, 60)
    longer = sum((pair.first.startswith("no")) == (place < 30) for place, pair in enumerate(wanted[:40])) + 12
    assert ann.longer is not None and ann.longer.value == pytest.approx(longer / 60)
    warnings = label_panel(figures_of(store)).warnings
    assert "ann answered 40% of 20 gold questions as known" in warnings[0]
    assert "took the answer on the left more often" in warnings[1]
    assert figures_of(store).labelled == 40


def test_the_counts_of_the_figures_agree(store: LabelStore) -> None:
    """Four pairs of which one is skipped, and one gold question: the sentence and the table count the same labels."""
    labelled(store, {"ann": choices("fst-")})
    gold = pairs(1, start=200, gold=True)
    store.add_pairs(gold)
    store.record(Label(gold[0].id, "ann", "first", "first", 3.0))
    panel = label_panel(figures_of(store))
    assert panel.sentences[0] == "1 annotator gave 3 labels on 3 of 4 pairs, and 1 on gold questions."
    assert panel.tables[0].columns[1:4] == ("labels", "gold", "skipped")
    assert panel.tables[0].rows == (("ann", 4, 1, 1, 0, 3.0),)


@pytest.mark.parametrize(
    ("choices", "how", "expected"),
    [
        (["first", "first", "second"], Exporting(), (1.0, "decided")),
        (["second"], Exporting(), (0.0, "decided")),
        (["first", "second"], Exporting(), (0.5, "disagreements")),
        (["first", "second"], Exporting(ties="drop"), (None, "disagreements")),
        (["tie", "tie", "first"], Exporting(), (0.5, "ties")),
        (["both_bad", "both_bad", "first"], Exporting(), (None, "both_bad")),
        (["both_bad"], Exporting(both_bad="half"), (0.5, "both_bad")),
        (["first", "first", "tie", "second"], Exporting(weights="share"), (0.625, "decided")),
    ],
)
def test_verdicts(choices: list[Choice], how: Exporting, expected: tuple[float | None, str]) -> None:
    assert verdict(choices, how) == expected


@pytest.mark.parametrize("form", ["preferences", "dpo", "hh"])
def test_exports_are_read_back_as_preferences(form: ExportFormat, store: LabelStore, tmp_path: Path) -> None:
    """Majority of three, a tie at weight 0.5, both bad dropped: 3 rows, in every format."""
    wanted = labelled(
        store,
        {
            "ann": ["first", "second", "tie", "both_bad"],
            "bob": ["first", "second", "tie", "both_bad"],
            "cid": ["second", "second", "first", "both_bad"],
        },
    )
    out = tmp_path / "out.jsonl"
    counts = export_labels(store, out, Exporting(form=form))
    assert counts == {"written": 3, "decided": 2, "ties": 1, "both_bad": 1, "disagreements": 0, "too_few": 0}
    loaded = load(Source(str(out)), "preferences").records
    assert [(one.chosen, one.rejected, one.weight) for one in loaded] == [
        (wanted[0].first, wanted[0].second, 1.0),
        (wanted[1].second, wanted[1].first, 1.0),
        (wanted[2].first, wanted[2].second, 0.5),
    ]
    assert [one.context for one in loaded] == [preference(n).context for n in range(3)]


def test_hh_refuses_what_it_cannot_say(store: LabelStore, tmp_path: Path) -> None:
    pair = pair_of(Preference((Turn("system", "Be kind."), Turn("user", "Hi?")), "a", "b"))
    store.add_pairs([pair])
    store.record(Label(pair.id, "ann", "first"))
    with pytest.raises(UserError, match="format hh: has no place for a system turn"):
        export_labels(store, tmp_path / "out.jsonl", Exporting(form="hh"))
    assert not (tmp_path / "out.jsonl").exists()


def test_labels_round_trip(store: LabelStore, tmp_path: Path) -> None:
    """Every label, gold questions and skips included, comes back equal from another store; twice changes nothing."""
    wanted = pairs(5)
    gold = pairs(5, start=50, gold=True)
    store.add_pairs([*wanted, *gold])
    for number, pair in enumerate([*wanted, *gold]):
        store.record(Label(pair.id, f"ann{number % 2}", get_args(Choice)[number % 5], "second", number / 4))
    out = tmp_path / "labels.jsonl"
    export_labels(store, out, Exporting(form="labels"))
    with LabelStore(tmp_path / "other.sqlite") as other:
        imported = import_labels(other, read_labels(str(out), None))
        assert (imported.rows, imported.new, imported.annotators) == (10, 10, {"ann0": 5, "ann1": 5})
        assert other.labels() == store.labels()
        assert other.pairs() == store.pairs()
        assert import_labels(other, read_labels(str(out), None)).new == 0


def test_import_from_other_tools(store: LabelStore, tmp_path: Path) -> None:
    """An arena's winner, and preferences with weights 1, 0.5 and 0.2."""
    arena, plain = tmp_path / "arena.jsonl", tmp_path / "plain.jsonl"
    said = ["model_a", "model_b", "tie", "tie (bothbad)"]
    rows = [{"question": f"Q{n}", "response_a": "zebra", "response_b": "ape", "winner": w} for n, w in enumerate(said)]
    arena.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_labels(store, read_labels(str(arena), "ann"))
    sides = [pair.first for pair in store.pairs().values()]
    taken = [first == answer for first, answer in zip(sides, ("zebra", "ape"), strict=False)]
    decided = ["first" if one else "second" for one in taken]
    assert [label.choice for label in store.labels()] == [*decided, "tie", "both_bad"]
    weighted = [{"prompt": f"P{n}", "chosen": "b", "rejected": "a", "weight": w} for n, w in enumerate([1, 0.5, 0.2])]
    plain.write_text("".join(json.dumps(row) + "\n" for row in weighted))
    import_labels(store, read_labels(str(plain), "bob"))
    known = store.pairs()
    said = [
        ("tie" if label.choice == "tie" else getattr(known[label.pair], label.choice)) for label in store.labels("bob")
    ]
    assert said == ["b", "tie", "a"]


@pytest.mark.parametrize(
    ("row", "annotator", "reason"),
    [
        ({"first": "a", "second": "b", "choice": "perhaps", "prompt": "?"}, "ann", ":1: choice: is 'perhaps'; known"),
        ({"first": "a", "second": "b", "choice": "tie"}, "ann", ":1: prompt: is missing"),
        ({"first": "a", "second": 3, "choice": "tie", "prompt": "?"}, "ann", ":1: second: is a number, not text"),
        ({"first": "a", "second": "b", "choice": "tie", "prompt": "?"}, None, ":1: annotator: nobody is named"),
        ({"first": "a", "second": "b", "choice": "tie", "prompt": "?", "seconds": "x"}, "ann", ":1: seconds: is 'x'"),
        ({"some": "thing"}, "ann", "no known format has the columns some"),
    ],
)
def test_bad_rows_are_named(row: dict[str, object], annotator: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=reason):
        read_labels(str(path), annotator)
