"""Pairing of per-item results: figures against scipy and statsmodels, alignment, and what is refused."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.errors import UserError
from smolt.evaluation.comparing import compare_files
from smolt.evaluation.comparing.results import Reading
from smolt.statistics import Comparison

EXACT = 1e-12


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def flags(path: Path, values: Sequence[bool]) -> Path:
    return write(path, [{"id": place, "correct": value} for place, value in enumerate(values)])


def table(folder: Path, wins: int, regressions: int, right: int, wrong: int) -> tuple[Path, Path]:
    """Two files whose four-way table is this one."""
    a = [False] * wins + [True] * regressions + [True] * right + [False] * wrong
    b = [True] * wins + [False] * regressions + [True] * right + [False] * wrong
    return flags(folder / "a.jsonl", a), flags(folder / "b.jsonl", b)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def facts(*words: object) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def complaint(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_the_published_case(tmp_path: Path) -> None:
    """1319 rows, 159 wins, 163 regressions: -0.30 points, -2.97 to +2.36, p = 0.87, 3.8 points detectable."""
    found = facts(*table(tmp_path, 159, 163, 420, 577))
    assert (found["n"], found["wins"], found["regressions"]) == (1319, 159, 163)
    assert (found["both_right"], found["both_wrong"], found["ties"]) == (420, 577, 997)
    shown = [round(100 * found[name], 2) for name in ("difference", "low", "high")]
    assert shown == [-0.30, -2.97, 2.36]
    assert round(found["p_value"], 2) == 0.87
    assert found["minimum_detectable"] == pytest.approx((1.960 + 0.842) * (322 / 1319 / 1319) ** 0.5, abs=EXACT)
    assert round(100 * found["minimum_detectable"], 1) == 3.8
    assert found["sentence"] == (
        "b against a, accuracy: no difference could be shown; only >= 3.8 points could have been (difference -0.30 "
        "points, 95 % interval -2.97 to +2.36, p = 0.87, n = 1,319)."
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40), st.integers(1, 40))
def test_figures_equal_scipy_and_statsmodels(
    tmp_path_factory: pytest.TempPathFactory, wins: int, regressions: int, right: int, wrong: int
) -> None:
    """Random four-way tables, through files, to 1e-12."""
    found = compare_files(table(tmp_path_factory.mktemp("t"), wins, regressions, right, wrong)).facts()
    n = wins + regressions + right + wrong
    for arm, count in (("a", regressions + right), ("b", wins + right)):
        measure = found["arms"][arm]
        assert measure["value"] == pytest.approx(count / n, abs=EXACT)
        assert (measure["low"], measure["high"]) == pytest.approx(
            proportion_confint(count, n, method="wilson"), abs=EXACT
        )
    assert found["difference"] == pytest.approx((wins - regressions) / n, abs=EXACT)
    if wins + regressions == 0 or n == 1:
        assert found["p_value"] is None
        return
    assert found["p_value"] == pytest.approx(scipy_stats.binomtest(wins, wins + regressions).pvalue, abs=EXACT)
    peer = mcnemar([[right, regressions], [wins, wrong]], exact=True).pvalue
    assert found["p_value"] == pytest.approx(peer, abs=EXACT)
    signs = np.array([1.0] * wins + [-1.0] * regressions + [0.0] * (right + wrong))
    half = scipy_stats.norm.ppf(0.975) * signs.std() / n**0.5
    low, high = signs.mean() - half, signs.mean() + half
    if low < -1 or high > 1:  # no difference of rates is there: on the logit scale, by scipy
        place = (1 + signs.mean()) / 2
        reach = half / 2 / (place * (1 - place))
        low, high = (2 * special.expit(special.logit(place) + way) - 1 for way in (-reach, reach))
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=EXACT)


def test_several_arms_are_adjusted_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = random.random(300) < 0.4
    paths = [flags(tmp_path / "base.jsonl", [bool(value) for value in base])]
    for name, share in (("one", 0.02), ("two", 0.1), ("three", 0.2)):
        paths.append(flags(tmp_path / f"{name}.jsonl", [bool(v) for v in base | (random.random(300) < share)]))
    found = facts(*paths)
    p_values = [entry["p_value"] for entry in found["comparisons"]]
    expected = multipletests(p_values, method="holm")[1].tolist()
    assert [entry["p_holm"] for entry in found["comparisons"]] == pytest.approx(expected, abs=EXACT)
    assert [(entry["a"], entry["b"]) for entry in found["comparisons"]] == [
        ("base", n) for n in ("one", "two", "three")
    ]
    assert "after Holm over 3 comparisons" in found["comparisons"][0]["sentence"]


def test_scores_have_a_paired_bootstrap(tmp_path: Path) -> None:
    """The mean difference is exact; the percentile interval is scipy's up to its Monte Carlo error."""
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, 200), random.normal(0.2, 1, 200)
    paths = [
        write(tmp_path / f"{name}.jsonl", [{"id": n, "score": value} for n, value in enumerate(values.tolist())])
        for name, values in (("a", first), ("b", second))
    ]
    found = facts(*paths)
    peer = scipy_stats.bootstrap((second - first,), np.mean, n_resamples=10_000, method="percentile", rng=0)
    assert found["difference"] == pytest.approx((second - first).mean(), abs=EXACT)
    assert (found["low"], found["high"]) == pytest.approx(tuple(peer.confidence_interval), abs=0.01)
    assert (found["metric"], found["accuracy_a"], found["test"]) == ("score", None, "paired bootstrap by question")
    assert found["mean_a"] == pytest.approx(first.mean(), abs=EXACT)


def test_several_answers_count_by_their_mean(tmp_path: Path) -> None:
    """60 questions, 4 answers each, one more right in b for every third question: +1/12, n = 60."""
    rows = [{"id": place // 4, "correct": place % 4 == 0} for place in range(240)]
    more = [{**row, "correct": row["correct"] or (row["id"] % 3 == 0 and n % 4 == 1)} for n, row in enumerate(rows)]
    found = facts(write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", more))
    assert (found["n"], found["wins"], found["regressions"], found["ties"]) == (60, 20, 0, 40)
    assert found["difference"] == pytest.approx(1 / 12, abs=EXACT)
    assert (found["accuracy_a"], found["arms"]["a"]["n"], found["both_right"]) == (0.25, 240, None)
    assert "a answered each item 4 times; an item counts by its mean" in found["remarks"]


def harness(folder: Path, name: str, right: Sequence[bool], hashes: str = "h") -> Path:
    """Rows as lm-evaluation-harness logs them with --log_samples, by two filters."""
    rows = [
        {
            "doc_id": place,
            "doc": {"question": f"Q{place}?", "answer": f"#### {place}"},
            "target": f"#### {place}",
            "arguments": {"gen_args_0": {"arg_0": f"Q{place}?"}},
            "resps": [[f"so {place}"]],
            "filtered_resps": [str(place)],
            "filter": kind,
            "metrics": ["exact_match"],
            "doc_hash": f"{hashes}{place}",
            "exact_match": float(value and kind == "strict-match"),
        }
        for place, value in enumerate(right)
        for kind in ("strict-match", "flexible-extract")
    ]
    return write(folder / name, rows)


def test_harness_samples(tmp_path: Path) -> None:
    """Two logs by one filter: 3 wins, 1 regression; a filter has to be named."""
    a = harness(tmp_path, "a.jsonl", [False] * 3 + [True] + [True] * 6)
    b = harness(tmp_path, "b.jsonl", [True] * 3 + [False] + [True] * 6)
    found = facts(a, b, "--filter", "strict-match")
    assert (found["metric"], found["n"], found["wins"], found["regressions"]) == ("exact_match", 10, 3, 1)
    assert "by the filters strict-match, flexible-extract; name one with --filter" in complaint(a, b)
    assert "there is no 'other'" in complaint(a, b, "--filter", "other")
    old = [{k: v for k, v in json.loads(line).items() if k != "filter"} for line in a.read_text().splitlines()]
    old = [{**row, "filtered_resps": [f"{place % 2}"]} for place, row in enumerate(old)]
    assert "a.jsonl:2: filtered_resps: differs from line 1, which has the same" in complaint(write(a, old), b)


def test_harness_against_plain_rows(tmp_path: Path) -> None:
    """Paired by question, for the plain rows have no id; pred and gold are graded as numbers; another order is said."""
    a = harness(tmp_path, "a.jsonl", [True] * 10)
    rows = [{"question": f"Q{n}?", "pred": f"It is {n}.0", "gold": str(n if n else 1)} for n in reversed(range(10))]
    found = facts(a, write(tmp_path / "b.jsonl", rows), "--filter", "strict-match")
    assert (found["key"], found["wins"], found["regressions"], found["metric"]) == ("question", 0, 1, "accuracy")
    assert "b lists the items in another order than a; they were paired by key" in found["remarks"]
    assert "b: graded by rule gsm8k (gsm8k-3)" in found["remarks"]


def test_one_id_must_mean_one_item(tmp_path: Path) -> None:
    """By the harness' hash, and by the question's text; --key pairs them anyway."""
    a, b = harness(tmp_path, "a.jsonl", [True] * 4), harness(tmp_path, "b.jsonl", [True] * 4, "other")
    assert "id '0' is one item in" in complaint(a, b, "--filter", "strict-match")
    one = write(tmp_path / "1.jsonl", [{"id": n, "question": "same?", "correct": True} for n in range(3)])
    two = write(tmp_path / "2.jsonl", [{"id": n, "question": "other?", "correct": True} for n in range(3)])
    assert "not the same item" in complaint(one, two)
    assert facts(one, two, "--key", "id")["n"] == 3


def test_files_that_number_their_items_differently(tmp_path: Path) -> None:
    """The same questions under other ids are paired by question."""
    one = write(tmp_path / "1.jsonl", [{"id": n, "question": f"q{n}", "correct": n < 4} for n in range(9)])
    two = write(tmp_path / "2.jsonl", [{"id": n, "question": f"q{8 - n}", "correct": n < 4} for n in range(9)])
    found = facts(one, two)
    assert (found["key"], found["n"], found["wins"], found["regressions"]) == ("question", 9, 4, 4)


def test_tables_without_types(tmp_path: Path) -> None:
    """CSV writes True and 0.5 as text."""
    for name, right in (("a", ("True", "false", "1")), ("b", ("true", "TRUE", "0"))):
        (tmp_path / f"{name}.csv").write_text(
            "id,correct,score\n" + "".join(f"{n},{r},{n}.5\n" for n, r in enumerate(right))
        )
    found = facts(tmp_path / "a.csv", tmp_path / "b.csv")
    assert (found["wins"], found["regressions"], found["both_right"]) == (1, 1, 1)
    assert facts(tmp_path / "a.csv", tmp_path / "b.csv", "--metric", "score")["mean_a"] == 1.5
    (tmp_path / "b.csv").write_text("id,correct\n0,nan\n1,0\n2,0\n")
    assert "b.csv:2: correct: must be true or false, not 'nan'" in complaint(tmp_path / "a.csv", tmp_path / "b.csv")


def test_smolts_own_rows(tmp_path: Path) -> None:
    """A directory with evaluation.jsonl stands for it; reward counts where nothing says right or wrong."""
    for name, shift in (("a", 0.0), ("b", 0.5)):
        (tmp_path / name).mkdir()
        rows = [
            {"question_id": f"q{n}", "question": "?", "answer": "x", "tokens": 1, "correct": None, "reward": n + shift}
            for n in range(60)
        ]
        write(tmp_path / name / "evaluation.jsonl", rows)
    found = facts(tmp_path / "a", tmp_path / "b")
    assert (found["a"], found["b"], found["metric"], found["difference"]) == ("a", "b", "reward", 0.5)
    length = facts(tmp_path / "a", tmp_path / "b", "--metric", "length")  # as smolt eval calls the mean of `tokens`
    assert (length["metric"], length["mean_a"]) == ("length", 1.0)


def test_missing_items_are_refused_or_counted(tmp_path: Path) -> None:
    a, b = flags(tmp_path / "a.jsonl", [True] * 5), flags(tmp_path / "b.jsonl", [False] * 3)
    assert "b.jsonl lacks 2 of 5 items ('3', '4'); --intersect compares" in complaint(a, b)
    found = facts(a, b, "--intersect")
    assert (found["n"], found["left_out"]) == (3, 2)
    assert "a: 2 of 5 items are not in every file and left out" in found["remarks"]


def test_rows_without_a_value_are_refused_or_left_out(tmp_path: Path) -> None:
    a = flags(tmp_path / "a.jsonl", [True] * 4)
    b = write(tmp_path / "b.jsonl", [{"id": n, "correct": None if n == 2 else False} for n in range(4)])
    assert "accuracy: is null in 1 of 4 rows" in complaint(a, b)
    found = facts(a, b, "--intersect")
    assert (found["n"], found["left_out"]) == (3, 1)


def test_duplicates_are_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [{"id": n, "correct": True} for n in (1, 2, 3, 3)])
    assert "a.jsonl: id '3' is there 2 times (lines 3, 4)" in complaint(a, a)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": 1, "score": NaN}\n', "a.jsonl:1: row: is not usable JSON: NaN is not JSON"),
        ('{"id": 1, "score": 1e999}\n', "a.jsonl:1: score: must be a finite number, not inf"),
        ('{"id": 1, "score": "high"}\n', "a.jsonl:1: score: must be a finite number, not 'high'"),
        ('{"id": 1, "correct": 3}\n', "a.jsonl:1: correct: must be true or false, not 3"),
        ('{"id": 1, "foo": 3}\n', "rows need correct, or pred and gold, or score; they have foo, id"),
        ('{"correct": true}\n', "a.jsonl:1: has no id and no question"),
        ("[1]\n", "a.jsonl:1: row: is not a JSON object"),
        ("", "a.jsonl: holds no rows"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    assert reason in complaint(path, path)


def test_arguments_that_are_wrong(tmp_path: Path) -> None:
    a, b = table(tmp_path, 3, 2, 1, 1)
    scores = write(tmp_path / "s.jsonl", [{"id": n, "score": n / 3} for n in range(7)])
    assert "needs two files or more" in complaint(a)
    assert "no such file" in complaint(a, tmp_path / "c.jsonl")
    assert "margin: must be between 0 and 1" in complaint(a, b, "--margin", 3)
    assert "s.jsonl by score; name one column with --metric" in complaint(a, scores)
    assert "--rule grades pred against gold" in complaint(a, b, "--rule", "gsm8k")
    other = write(tmp_path / "o.jsonl", [{"id": f"x{n}", "correct": True} for n in range(7)])
    assert "share no item by id" in complaint(a, other)


def test_no_p_value_where_the_data_carry_none(tmp_path: Path) -> None:
    """One item, all ties, one question answered often: null in JSON, none in words."""
    one = [flags(tmp_path / f"{name}1.jsonl", [name == "a"]) for name in "ab"]
    ties = [flags(tmp_path / f"{name}2.jsonl", [True, False] * 20) for name in "ab"]
    often = [write(tmp_path / f"{n}3.jsonl", [{"id": 0, "score": n + k / 7} for k in range(9)]) for n in range(2)]
    for paths in (one, ties, often):
        found = facts(*paths)
        assert found["p_value"] is None
        assert not re.search(r"\bp [=<]", run(*paths).output)
    assert facts(*one)["low"] is None


def test_questions_that_all_went_one_way_have_no_interval(tmp_path: Path) -> None:
    found = facts(*table(tmp_path, 8, 0, 0, 0))
    assert (found["difference"], found["low"], found["p_value"]) == (1.0, None, 2 / 256)
    assert "b has higher accuracy than a, by 100.00 points (difference +100.00 points, no interval" in found["sentence"]


def test_retest_and_margin(tmp_path: Path) -> None:
    """The baseline again: 1 of 100 flips; a loss of 10 points is excluded, one of 1 point is not."""
    right = [place % 2 == 0 for place in range(100)]
    a, again = flags(tmp_path / "a.jsonl", right), flags(tmp_path / "again.jsonl", [True, True, *right[2:]])
    b = flags(tmp_path / "b.jsonl", [True, True, True, *right[3:]])
    found = facts(a, b, "--retest", again, "--margin", 0.1)
    assert (found["retest"]["flips"], found["retest"]["n"], found["retest"]["stable"]) == (1, 100, True)
    assert found["non_inferiority"]["shown"]
    assert not facts(a, b, "--margin", 0.01)["non_inferiority"]["shown"]
    assert [entry["b"] for entry in found["comparisons"]] == ["b"]
    assert "a measured twice: 1 of 100 results change by themselves" in run(a, b, "--retest", again).output


def test_the_terminal_lists_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""A terminal gets the same words: what makes text inert would show styles as `\x1b[1m`."""
    monkeypatch.setenv("COLUMNS", "160")
    output = run(*table(tmp_path, 4, 2, 1, 1), "--show", 3).output
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(*table(tmp_path, 4, 2, 1, 1), "--show", 3).output == output
    assert "x1b" not in output
    assert "Wins of b (the first 3)" in output and "Regressions of b (the first 2)" in output
    assert "Wins of b (the first)\n" in run(*table(tmp_path, 4, 2, 1, 1), "--show", 1).output
    lines = [line.split() for line in output.splitlines()]
    counts = lines[next(place for place, words in enumerate(lines) if words[:1] == ["items"]) :]
    assert counts[0] == ["items", "both", "right", "won", "lost", "both", "wrong"]
    assert counts[2] == ["b", "1", "4", "2", "1"]
    assert "Wins" not in run(*table(tmp_path, 4, 2, 1, 1), "--show", 0).output


HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e=cmd|'x'"


def hostile(folder: Path) -> tuple[Path, Path]:
    rows = [{"id": f"{n}{HOSTILE}", "question": f"{n}{HOSTILE}", "answer": HOSTILE + "x" * 10**6} for n in range(9)]
    a = write(folder / "<b>a\x1b[31m.jsonl", [{**row, "correct": n % 3 == 0} for n, row in enumerate(rows)])
    b = write(folder / "b.jsonl", [{**row, "correct": n % 2 == 0} for n, row in enumerate(rows)])
    return a, b


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    """No control character reaches the terminal; no element and no long text reaches the page."""
    a, b = hostile(tmp_path)
    out = tmp_path / "out"
    result = run(a, b, "--out", out)
    assert result.exit_code == 0
    assert not set(result.output) & {"\x1b", "\u202e"}
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page and "\\x1b[2J" in page
    assert "default-src 'none'" in page and len(page) < 300_000


def test_the_directory_holds_every_item(tmp_path: Path) -> None:
    """items.jsonl has each item with its outcome; the page has the four-way chart; nothing is written over."""
    out = tmp_path / "out"
    found = facts(*table(tmp_path, 4, 2, 3, 1), "--out", out)
    rows = [json.loads(line) for line in (out / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = {
        name: sum(row["outcome"] == name for row in rows) for name in ("win", "regression", "both right", "both wrong")
    }
    assert counts == {"win": 4, "regression": 2, "both right": 3, "both wrong": 1}
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8"))["wins"] == found["wins"] == 4
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "3 both right, 4 won, 2 lost, 1 both wrong" in page
    widths = re.findall(r'<rect class="(\w+)" x="[\d.]+%" width="([\d.]+)%"', page)
    assert {name: float(width) for name, width in widths} == {"both": 30.0, "win": 40.0, "loss": 20.0, "neither": 10.0}
    assert "is not written over" in complaint(*table(tmp_path, 4, 2, 3, 1), "--out", out)


def test_the_verdict_is_the_reports(tmp_path: Path) -> None:
    """The sentence is the one that a Comparison of these counts carries."""
    findings = compare_files(table(tmp_path, 60, 20, 200, 120), Reading())
    comparison = findings.pairs[0].comparison
    assert isinstance(comparison, Comparison)
    assert comparison.sentence.startswith("b has higher accuracy than a, by 10.00 points (difference +10.00 points")
    with pytest.raises(UserError, match="two files or more"):
        compare_files([tmp_path / "a.jsonl"])
