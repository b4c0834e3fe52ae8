"""Grading rules, what could not be read, and the files of any tool: hand-made rows with known counts."""

import gzip
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint
from typer.testing import CliRunner

from smolt.cli import app
from smolt.errors import UserError
from smolt.evaluation.grading import answer_table, grade_file, rule_named
from smolt.evaluation.grading.choices import choice

SUMS = [("so #### 18", "#### 18"), ("18.0", "18"), ("no idea", "3"), ("$1,000", "1000"), (None, "4"), ("it is 7", "8")]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(path: Path) -> Path:
    return write(path, [{"question": f"q{n}", "answer": a, "gold": g} for n, (a, g) in enumerate(SUMS)])


def test_counts_interval_and_sensitivity(tmp_path: Path) -> None:
    """3 of 6 right by value (18, 18.0, 1,000), 2 by text, 2 unreadable: between 3/6 and 5/6."""
    facts = grade_file(sums(tmp_path / "a.jsonl"), rule_named("gsm8k"), "answer", "gold").facts()
    assert (facts["n"], facts["correct"], facts["unextracted"], facts["string_correct"]) == (6, 3, 2, 2)
    assert (facts["accuracy"], facts["if_failures_wrong"], facts["if_failures_right"]) == (0.5, 0.5, 5 / 6)
    low, high = proportion_confint(3, 6, method="wilson")
    assert (facts["low"], facts["high"]) == pytest.approx((low, high), abs=1e-12)
    assert (facts["rule"], facts["rule_version"]) == ("gsm8k", "gsm8k-3")


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    path = sums(tmp_path / "a.jsonl")
    options = ["--answer-field", "answer", "--gold-field", "gold", "--rule", "gsm8k", "--json"]
    result = CliRunner().invoke(app, ["grade", str(path), *options])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {name: found[name] for name in ("n", "correct", "accuracy", "unextracted")} == {
        "n": 6,
        "correct": 3,
        "accuracy": 0.5,
        "unextracted": 2,
    }
    assert "between 50.0 % (all of them wrong) and 83.3 % (all right)" in found["warnings"][0]


def test_failures_are_counted_per_arm(tmp_path: Path) -> None:
    one, two = sums(tmp_path / "one.jsonl"), write(tmp_path / "two.jsonl", [{"answer": "3", "gold": 3}])
    result = CliRunner().invoke(app, ["grade", str(one), str(two), "--json"])
    arms = json.loads(result.stdout)["arms"]
    assert {name: arm["unextracted"] for name, arm in arms.items()} == {"one": 2, "two": 0}


def test_written_rows_are_compared(tmp_path: Path) -> None:
    """Graded rows of two arms go through `smolt compare`; nothing is written over."""
    first = sums(tmp_path / "first.jsonl")
    second = write(
        tmp_path / "second.jsonl", [{"question": f"q{n}", "answer": g, "gold": g} for n, (_, g) in enumerate(SUMS)]
    )
    command = ["grade", str(first), str(second), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    row = json.loads((tmp_path / "out" / "first.jsonl").read_text().splitlines()[1])
    assert (row["pred"], row["correct"], row["string_correct"], row["rule"]) == ("18.0", True, False, "gsm8k-3")
    paths = [str(tmp_path / "out" / name) for name in ("first.jsonl", "second.jsonl")]
    found = json.loads(CliRunner().invoke(app, ["compare", *paths, "--json"]).stdout)
    assert (found["n"], found["wins"], found["regressions"], found["accuracy_b"]) == (6, 3, 0, 1.0)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2 and "is not written over" in again.output


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("**C**", "C"),
        ("The answer is (C).", "C"),
        ("Answer: d", "D"),
        ("First I thought the answer is A, but the answer is B because of it.", "B"),
        (r"so \boxed{E}", "E"),
        (r"\boxed{\text{D}}", "D"),
        ("B. Paris", "B"),
        ("(b) Paris", "B"),
        ("It must be (C), I think.", "C"),
        ("I pick D.", "D"),
        ("A dog bites.", None),
        ("answer: a lot", None),
        ("The answer is Beijing", None),
        ("", None),
        ("42", None),
    ],
)
def test_letters(answer: str, letter: str | None) -> None:
    assert choice(answer) == letter


@given(st.text(max_size=200))
def test_a_letter_is_one_of_ten_or_none(text: str) -> None:
    assert choice(text) in {None, *"ABCDEFGHIJ"}


@pytest.mark.parametrize(
    ("answer", "gold", "correct", "read"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", True, True),
        (r"thus $x=3$", "3", True, True),
        (r"\boxed{(1,2)}", r"\boxed{(1,2)}", True, True),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", True, True),
        ("words only", "4", False, False),
        (r"\boxed{5}", "4", False, True),
    ],
)
def test_mathematics(answer: str, gold: str, correct: bool, read: bool) -> None:
    grade = rule_named("math").judge(answer, gold)
    assert (grade.correct, grade.found is not None) == (correct, read)


def test_patterns_take_the_last_match() -> None:
    rule = rule_named(r"regex:ANSWER=(\w+)")
    assert rule.judge("ANSWER=no, wait: ANSWER=yes", " yes ").correct
    assert rule.judge("yes", "yes").found is None
    assert rule_named("regex:[a-z]+").judge("x is yes", "yes").correct


def test_functions_decide_or_say_that_they_cannot(tmp_path: Path) -> None:
    file = tmp_path / "g.py"
    file.write_text(
        "def rate(answer, gold):\n    return None if not answer else gold in answer\n\n\ndef two(a, g):\n    return 2\n"
    )
    rule = rule_named(f"{file}:rate")
    assert [rule.judge(answer, "a").correct for answer in ("cat", "dog", "")] == [True, False, False]
    assert rule.judge("", "a").found is None
    assert rule.version.startswith("sha256 ")
    with pytest.raises(UserError, match="returned 2; True, False or None"):
        rule_named(f"{file}:two").judge("x", "y")


def test_a_function_that_raises_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text("def rate(answer, gold):\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"g\.py:2 in rate: ZeroDivisionError"):
        rule_named(f"{tmp_path / 'g.py'}:rate").judge("x", "y")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nope", "is unknown; there are gsm8k, gsm8k-1, gsm8k-2, math"),
        ("regex:(", "is no regular expression"),
        ("x.py:f", "no such file"),
    ],
)
def test_rules_that_are_none(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        rule_named(name)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "3", "gold": "none"}, r"a\.jsonl:1: gold: no number to compare with \(rule gsm8k\)"),
        ({"answer": "3"}, "name it with --gold-field"),
        ({"answer": {"x": 1}, "gold": "3"}, r"a\.jsonl:1: answer: is neither text nor a number"),
    ],
)
def test_rows_at_fault_are_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        grade_file(write(tmp_path / "a.jsonl", [row]), rule_named("gsm8k"))


def test_columns_inside_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"resps": [["so 4"]], "doc": {"key": 4}}])
    graded = grade_file(path, rule_named("gsm8k"), "resps.0.0", "doc.key")
    assert graded.correct == 1
    with pytest.raises(UserError, match=r"resps\.1\.0: is missing; the row has resps, doc"):
        grade_file(path, rule_named("gsm8k"), "resps.1.0", "doc.key")


def test_questions_answered_twice_have_a_bootstrap(tmp_path: Path) -> None:
    rows = [{"question": f"q{n // 2}", "answer": str(n % 3), "gold": "1"} for n in range(20)]
    graded = grade_file(write(tmp_path / "a.jsonl", rows), rule_named("gsm8k"))
    assert graded.accuracy.source == "bootstrap by question, fewer than 50"


def test_limits_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row and a file over the limit are refused before they are parsed, packed ones too."""
    monkeypatch.setattr(answer_table, "LONGEST_ROW", 2**20)
    path = write(tmp_path / "a.jsonl", [{"id": 1, "answer": "x"}, {"id": 2, "answer": "x" * 2**20}])
    with pytest.raises(UserError, match=r"a\.jsonl:2: row: is longer than 1 MiB"):
        answer_table.read_rows(path)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz:2: row: is longer than 1 MiB"):
        answer_table.read_rows(packed)
    monkeypatch.setattr(answer_table, "LONGEST_ROW", 2**22)
    monkeypatch.setattr(answer_table, "LARGEST_FILE", 2**19)
    with pytest.raises(UserError, match="at most 0 GiB are read"):
        answer_table.read_rows(path)
    with pytest.raises(UserError, match="unpacks to more than"):
        answer_table.read_rows(packed)


def test_long_answers_are_read_from_their_end(tmp_path: Path) -> None:
    """A million characters of noise before the number cost no more than the last 20,000."""
    path = write(tmp_path / "a.jsonl", [{"answer": "7 " * 500_000 + "#### 12", "gold": "12"}])
    assert grade_file(path, rule_named("gsm8k")).correct == 1


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=50))
def test_numbers_are_exact(value: Fraction) -> None:
    """A fraction equals itself written out, and no neighbour."""
    rule, text = rule_named("gsm8k"), f"{value.numerator}/{value.denominator}"
    assert rule.judge(f"#### {text}", text).correct
    assert not rule.judge(f"#### {text}", f"{value.numerator + 1}/{value.denominator}").correct
