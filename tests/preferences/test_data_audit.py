"""The audit of preference data, on data made for it: each finding has a case that it must find and one it must not."""

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import RewardRecipe, load_recipe
from smolt.data import Source, Turn
from smolt.errors import UserError
from smolt.preferences.audit import (
    AuditOptions,
    LabelledPair,
    audit_panel,
    audit_preferences,
    rank_by_cross_fit,
    read_items,
)
from smolt.preferences.audit.bias import traits_of
from smolt.preferences.audit.conflicts import circles, opposites
from smolt.preferences.audit.duplicates import clusters, normalised, shingles, similarity
from smolt.preferences.audit.features import word_differences
from smolt.preferences.audit.leakage import leakage_of
from smolt.preferences.audit.suspects import FOLDS, cross_fit, folds_of
from smolt.statistics.logistic import bradley_terry_weights
from smolt.study.learning_curve import FRACTIONS, run_pilot
from tests.shared import shared_path
from tests.tiny import tiny_model

WORDS = [f"word{number}" for number in range(200)]


def item(line: int, asked: str, better: str, worse: str, tie: bool = False) -> LabelledPair:
    return LabelledPair(line, (Turn("user", asked),), better, worse, tie)


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sentence(draw: random.Random, size: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(size))


def test_normalised_text() -> None:
    assert normalised("  \uff26\uff35ll-width, CAFÉ_and\n\tstraße! ") == "full width café and strasse"


def test_similarity_by_hand() -> None:
    """The triples abc bcd cde and abc bcd cdf: 2 of 4 shared."""
    assert similarity(shingles("a b c d e"), shingles("a b c d f")) == 0.5
    assert shingles("a b") != shingles("b a")


def test_clusters_find_near_texts_and_no_others() -> None:
    """One word of 60 changed leaves at least 55 of 61 triples (0.9); texts of other words share none."""
    draw = random.Random(0)
    texts = [sentence(draw, 60) for _ in range(50)]
    changed = texts[7].split()
    changed[30] = "another"
    found = clusters([*texts, " ".join(changed), texts[3]])
    assert sorted(found) == [[3, 51], [7, 50]]


def test_contradictions() -> None:
    """The same two answers both ways, in another spelling; a circle of three; a tie and a chain are none."""
    items = [
        item(1, "Why?", "Because.", "No."),
        item(2, "why", "no", "because"),
        item(3, "Who?", "a", "b"),
        item(4, "Who?", "b", "c"),
        item(5, "Who?", "c", "a"),
        item(6, "When?", "a", "b"),
        item(7, "When?", "b", "c"),
        item(8, "When?", "b", "a", tie=True),
    ]
    assert opposites(items) == [[1, 2]]
    assert circles(items) == [[3, 4, 5]]


def test_traits_by_hand() -> None:
    """4 pairs: the longer one preferred in 2 of the 3 that differ; a list on one side in 2, preferred once."""
    items = [
        item(1, "a", "one two three", "one"),
        item(2, "b", "- one\n- two", "none at all, sorry to say"),
        item(3, "c", "yes", "1. no"),
        item(4, "d", "I cannot help you with that.", "Sure I can help with this."),
        item(5, "e", "- tie", "no", tie=True),
    ]
    found = {trait.name: trait for trait in traits_of(items)}
    longer, lists, refusal = (found[name].preferred for name in ("longer", "list", "refusal"))
    assert longer is not None and (longer.value, longer.n) == (1 / 3, 3)
    assert lists is not None and (lists.value, lists.n) == (0.5, 2)
    assert refusal is not None and (refusal.value, refusal.n) == (1.0, 1)


def test_leakage() -> None:
    long = " ".join(WORDS[:40])
    found = leakage_of(["What is it?", long], ["what is IT", "Another one", long + " more"], [10, 11, 12])
    assert (found.exact, found.near, found.questions) == ((10,), (12,), 3)


def test_fit_equals_logistic_regression() -> None:
    """The same minimum as scikit-learn's, on the mirrored data, without an intercept and C = 1 / (2 shrink)."""
    draw = np.random.default_rng(0)
    differences = draw.normal(size=(80, 5)) + 0.3
    both = np.vstack([differences, -differences])
    peer = LogisticRegression(C=1 / (2 * 3.0), fit_intercept=False, tol=1e-10, max_iter=1000)
    peer.fit(both, np.repeat([1, 0], 80))
    assert bradley_terry_weights(differences, 3.0) == pytest.approx(peer.coef_[0], abs=1e-4)


def test_a_fold_is_judged_by_the_others() -> None:
    """A feature that only one fold has gets no weight from the others: its lead is exactly 0."""
    folds = np.repeat(np.arange(4), 5)
    differences = np.eye(4)[folds]
    assert cross_fit(differences, folds, 1.0).tolist() == [0.0] * 20


def test_equal_questions_share_a_fold() -> None:
    names = [str(number % 100) for number in range(300)]
    folds = folds_of(names, seed=1)
    assert len({(name, int(fold)) for name, fold in zip(names, folds, strict=True)}) == 100
    assert np.bincount(folds).tolist() == [300 // FOLDS] * FOLDS


def test_rare_words_are_left_out() -> None:
    """Words of fewer than 3 answers have no weight: here only `good` and `bad` stay, 1 and -1 of norm 1."""
    differences = word_differences(["good", "good", "good unique"], ["bad", "bad", "bad"]).toarray()
    assert differences.shape == (3, 2)
    assert sorted(differences[0]) == [-1.0, 1.0]


def learnable(size: int, seed: int) -> list[LabelledPair]:
    """Preferred answers use the first half of the vocabulary in 70 % of their words, the others in 30 %."""
    draw = random.Random(seed)

    def answer(share: float) -> str:
        return " ".join(WORDS[draw.randrange(100) + 100 * (draw.random() > share)] for _ in range(30))

    return [item(line, f"question {line}", answer(0.7), answer(0.3)) for line in range(1, size + 1)]


def test_flipped_labels_come_first_where_they_can_be_told() -> None:
    """20 % of 300 labels flipped: at least 54 of the 60 most doubted are flipped ones."""
    items = learnable(300, 0)
    flipped = set(random.Random(1).sample(range(300), 60))
    noisy = [
        dataclasses.replace(one, better=one.worse, worse=one.better) if place in flipped else one
        for place, one in enumerate(items)
    ]
    ranking = rank_by_cross_fit(noisy)
    assert ranking is not None and ranking.accuracy is not None
    assert len(flipped & set(ranking.places[:60])) >= 54
    assert list(ranking.doubt) == sorted(ranking.doubt, reverse=True)
    assert ranking.accuracy.value == pytest.approx(0.8, abs=0.03)


def test_only_doubted_labels_are_listed(tmp_path: Path) -> None:
    """The longer answer is better in 58 of 60 pairs: the two others are listed, no label that the model would give."""
    draw = random.Random(5)
    texts = [(sentence(draw, 40), sentence(draw, 8)) for _ in range(60)]
    texts[17], texts[41] = texts[17][::-1], texts[41][::-1]
    rows = [{"prompt": f"q{n}", "chosen": long, "rejected": short} for n, (long, short) in enumerate(texts)]
    found = audit_preferences(Source(write(tmp_path / "a.jsonl", rows)), AuditOptions())
    assert found.ranking is not None and len(found.ranking.places) == 60
    listed = audit_panel(found).tables[-1].rows
    assert {row[0] for row in listed} == {"18", "42"}


def test_nothing_is_claimed_of_labels_without_a_pattern(tmp_path: Path) -> None:
    """Random answers: the panel says that the ranking says nothing, and lists none. Under 40 pairs there is none."""
    draw = random.Random(3)
    rows = [{"prompt": f"q{n}", "chosen": sentence(draw, 20), "rejected": sentence(draw, 20)} for n in range(120)]
    panel = audit_panel(audit_preferences(Source(write(tmp_path / "a.jsonl", rows)), AuditOptions()))
    assert any("no better than a coin" in warning for warning in panel.warnings)
    assert panel.tables[-1].rows == ()
    few = audit_preferences(Source(write(tmp_path / "b.jsonl", rows[:39])), AuditOptions())
    assert few.ranking is None
    assert "Too few labelled pairs" in audit_panel(few).sentences[-1]


def test_lines_sources_and_weights_are_those_of_the_file(tmp_path: Path) -> None:
    """A bad row keeps the numbering; a weight below a half turns the pair; dotted source fields are read."""
    rows: list[dict[str, object]] = [
        {"prompt": "a", "chosen": "1", "rejected": "2", "metadata": {"from": "x"}},
        {"prompt": "b", "chosen": 5, "rejected": "2", "metadata": {"from": "x"}},
        {"prompt": "c", "chosen": "1", "rejected": "2", "weight": 0.2, "metadata": {"from": "y"}},
        {"prompt": "d", "chosen": "1", "rejected": "2", "weight": 0.5},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    read = read_items(Source(path, skip_bad=True), "metadata.from")
    assert [(one.line, one.better, one.tie, one.source) for one in read.items] == [
        (1, "1", False, "x"),
        (3, "2", False, "y"),
        (4, "1", True, ""),
    ]
    assert read.skipped == 1
    said = audit_panel(audit_preferences(Source(path, skip_bad=True), AuditOptions())).sentences[0]
    assert said.endswith(": 3 pairs, 2 of them labelled, 1 tie.")
    with pytest.raises(UserError, match="source: no row has a field 'nowhere'"):
        read_items(Source(path, skip_bad=True), "nowhere")


def test_the_command_shows_no_text_unless_asked(tmp_path: Path) -> None:
    """Ids, counts and statistics in words, JSON and files; `--show` prints the texts, control characters inert."""
    rows = [
        {"prompt": f"offensive {n}", "chosen": f"OFFENSIVE\x1b[2J {n}", "rejected": "offensive", "source": "ab"[n % 2]}
        for n in range(60)
    ]
    path, out = write(tmp_path / "a.jsonl", [*rows, rows[0]]), tmp_path / "out"
    runner = CliRunner()
    plain = runner.invoke(app, ["data", "audit", path, "--test", path, "--out", str(out)])
    assert plain.exit_code == 0, plain.output
    assert "61 of 61 test questions are in the training data" in plain.output
    files = "".join(file.read_text(encoding="utf-8") for file in out.iterdir())
    assert {file.name for file in out.iterdir()} == {"audit.json", "audit.md", "suspects.jsonl"}
    assert "offensive" not in (plain.output + files).lower()
    facts = json.loads(runner.invoke(app, ["data", "audit", path, "--json"]).stdout)
    assert (facts["n"], facts["duplicates"]["exact"], facts["leakage"]) == (61, [[1, 61]], None)
    assert [part["source"] for part in facts["sources"]] == ["a", "b"]
    shown = runner.invoke(app, ["data", "audit", path, "--show", "2"]).output
    assert shown.count("OFFENSIVE\\x1b[2J") == 2 and "\x1b" not in shown


def test_bad_input_is_named(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "none.jsonl")])
    assert (missing.exit_code, "no such file" in missing.output) == (2, True)
    assert CliRunner().invoke(app, ["data", "pilot", "smoke", "--out", str(tmp_path / "p")]).exit_code == 2


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("ultrafeedback/train_clean.jsonl", 0.24),
        ("oasst/ranked_pairs.jsonl", 0.26),
        ("hh/harmless_test_pairs.jsonl", 0.36),
    ],
)
def test_flipped_labels_of_public_data(file: str, least: float) -> None:
    """20 % flipped: precision at 200 lies above the base rate of 0.2 (figures: bench/results)."""
    items = read_items(Source(str(shared_path(f"data/{file}")))).items
    flipped = set(np.random.default_rng(1000).choice(len(items), len(items) // 5, replace=False).tolist())
    noisy = [
        dataclasses.replace(one, better=one.worse, worse=one.better) if place in flipped else one
        for place, one in enumerate(items)
    ]
    ranking = rank_by_cross_fit(noisy)
    assert ranking is not None
    assert len(flipped & set(ranking.places[:200])) / 200 > least


def test_a_reward_model_may_judge_and_pilots_learn(tmp_path: Path) -> None:
    """A reward model of five fractions of 120 pairs, each measured on the same 12; the last one ranks all pairs."""
    model = tiny_model(tmp_path / "model")
    rows = [{"prompt": f"{n}?", "chosen": "yes" * (n % 3 + 1), "rejected": "no"} for n in range(120)]
    data = write(tmp_path / "pairs.jsonl", rows)
    overrides = [f"model.path={model}", f"data.path={data}", "budget.updates=1", "batch=4", "model.threads=1"]
    recipe_file = tmp_path / "reward.yaml"
    recipe_file.write_text("stage: reward\nmodel: {path: x}\ndata: {path: y}\n")
    recipe = load_recipe(str(recipe_file), "reward", overrides)
    assert isinstance(recipe, RewardRecipe)
    out = tmp_path / "pilot"
    points = run_pilot(recipe, out, lambda training: training.finish().metrics)
    assert [(point.fraction, point.pairs, point.accuracy.n) for point in points] == list(
        zip(FRACTIONS, (5, 11, 27, 54, 108), [12] * 5, strict=True)
    )
    assert run_pilot(recipe, out, lambda training: training.finish().metrics) == points
    done = CliRunner().invoke(app, ["data", "pilot", str(recipe_file), *overrides, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert [point["pairs"] for point in json.loads(done.stdout)["points"]] == [5, 11, 27, 54, 108]
    assert (out / "plots" / "learning-curve-learning-curve.png").is_file()
    words = ["data", "audit", data, "--model", str(out / "100-percent"), "--json"]
    judged = CliRunner().invoke(app, words)
    assert judged.exit_code == 0, judged.output
    facts = json.loads(judged.stdout)
    assert facts["judged_by"].startswith("the reward model") and facts["expected"]["n"] == 120
