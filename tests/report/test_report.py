import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from smolt import statistics
from smolt.errors import UserError
from smolt.report import wording
from smolt.report.analysis import analyse
from smolt.report.inert import visible
from smolt.report.pairing import paired
from smolt.report.pictures import curves
from smolt.report.record import Arm, StudyRecord, read_record, write_record
from smolt.report.report import rewrite_report, write_report
from smolt.report.sections import samples
from smolt.report.sections.headline import ONE_RUN
from smolt.statistics import Measure
from tests.report.records import CALIBRATION, HOSTILE, item, judged, study

VOID = {"meta", "img", "source", "br", "link", "input", "hr", "base"}
CLOSED = {"line", "circle", "rect"}


class Page(HTMLParser):
    """The tags, attributes and text that a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in CLOSED
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRecord]:
    """A written report with every section, and its record."""
    right = "1010010110"
    arms = [
        Arm("sft", "sft", items=[item(i, c == "1", i / 10, kl=0.0, kind="ab"[i % 2]) for i, c in enumerate(right)]),
        Arm(
            "dpo",
            "dpo",
            parent="sft",
            items=[
                item(i, i != 0, 0.5 + i / 20, kl=1.0, kind="ab"[i % 2], components={"gsm8k": 1.0}) for i in range(10)
            ],
            curve=[{"step": step, "loss": 1 / step, "dev/loss": 2 / step} for step in range(1, 4)],
            cost={"seconds": 90.0, "tokens": 12_000, "peak_memory": 2.0**30},
            facts={"beta": 0.1},
        ),
        Arm("more", "sft", items=[item(i, i < 7, 0.3, kind="ab"[i % 2]) for i in range(10)], role="control"),
        Arm(
            "scorer",
            "reward",
            role="component",
            extra_measures={"held-out": Measure(0.7, 0.6, 0.8, 100, "Wilson", rate=True)},
        ),
    ]
    record = study(*arms, provenance={"recipe": "x.yaml", "versions": {"torch": "2.13"}}, events=["stopped early"])
    directory = tmp_path_factory.mktemp("report")
    write_report(directory, record)
    return directory, record


def test_contract_of_report_json(full: tuple[Path, StudyRecord]) -> None:
    """Arms carry value, low, high, n for each metric; comparisons the eleven agreed fields; baseline a, candidate b."""
    report = json.loads((full[0] / "report.json").read_text())
    assert set(report["arms"]) == {"sft", "dpo", "more", "scorer"}
    assert set(report["arms"]["sft"]) == {"accuracy", "reward", "kl", "length", "stop_rate"}
    assert {"value", "low", "high", "n"} <= set(report["arms"]["sft"]["accuracy"])
    assert report["arms"]["scorer"]["held-out"]["n"] == 100
    first = report["comparisons"][0]
    agreed = {
        "a",
        "b",
        "metric",
        "wins",
        "regressions",
        "p_value",
        "difference",
        "low",
        "high",
        "minimum_detectable",
        "n",
    }
    assert agreed <= set(first)
    assert (first["a"], first["b"], first["metric"], first["n"]) == ("sft", "dpo", "accuracy", 10)
    pairs = [(entry["a"], entry["b"]) for entry in report["comparisons"] if entry["metric"] == "accuracy"]
    assert pairs == [("sft", "dpo"), ("more", "dpo"), ("sft", "more")]
    assert report["verdicts"][-1] == ONE_RUN
    assert report["provenance"]["versions"]["torch"] == "2.13"


def test_numbers_equal_statistics(full: tuple[Path, StudyRecord]) -> None:
    """sft is right on 5 of 10; dpo wins 5 (1, 3, 4, 6, 9) and loses 1 (0), so +40 points, p = 14 / 64."""
    report = json.loads((full[0] / "report.json").read_text())
    accuracy = report["arms"]["sft"]["accuracy"]
    assert [accuracy["low"], accuracy["high"]] == list(statistics.wilson(5, 10))
    first = report["comparisons"][0]
    expected = statistics.compare_counts("sft", "dpo", "accuracy", 5, 1, 10)
    assert (first["wins"], first["regressions"], first["ties"]) == (5, 1, 4)
    assert (first["difference"], first["low"], first["high"]) == (expected.difference, expected.low, expected.high)
    assert first["p_value"] == 14 / 64
    family = [entry for entry in report["comparisons"] if entry["metric"] == "accuracy"]
    assert [entry["p_holm"] for entry in family] == statistics.holm([entry["p_value"] for entry in family])


def test_verdicts_are_the_sentences_of_the_tests(full: tuple[Path, StudyRecord]) -> None:
    report = json.loads((full[0] / "report.json").read_text())
    sentences = [entry["sentence"] for entry in report["comparisons"] if entry["metric"] == "accuracy"]
    assert report["verdicts"] == [*sentences, ONE_RUN]
    assert "better" not in " ".join(report["verdicts"])


def test_page_is_well_formed_and_asks_for_nothing(full: tuple[Path, StudyRecord]) -> None:
    """No script, no link, no address but data:, a policy that forbids the rest, every picture with words for it."""
    source = (full[0] / "report.html").read_text()
    page = Page(source)
    assert page.open == []
    assert not {"script", "iframe", "link", "base", "object", "embed", "form"} & set(page.tags)
    assert not {name for _, name, _ in page.attributes if name.startswith("on") or name == "style"}
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and name == "content")
    styles = re.findall("<style>(.*?)</style>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")
    assert len(styles) == 1
    addresses = [value for _, name, value in page.attributes if name in ("src", "srcset")]
    assert addresses
    assert all(value.startswith("data:image/svg+xml;base64,") for value in addresses)
    anchors = {f"#{value}" for _, name, value in page.attributes if name == "id"}
    assert {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")} <= anchors
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert not re.search(r"url\(|@import", source)


def test_pictures_are_on_disk_as_png_and_svg(full: tuple[Path, StudyRecord]) -> None:
    names = {path.name for path in (full[0] / "plots").iterdir()}
    stems = {"accuracy_by_model", "reward_by_model", "curve_dpo_loss", "frontier-arms", "kinds-by-kind"}
    stems |= {"verbosity-length-reward", "verbosity-length", "win-rates-over-the-baseline"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert (full[0] / "plots" / "verbosity-length-reward.png").read_bytes().startswith(b"\x89PNG")
    inlined = base64.b64encode((full[0] / "plots" / "frontier-arms.svg").read_bytes()).decode()
    assert inlined in (full[0] / "report.html").read_text()


def test_record_round_trip(full: tuple[Path, StudyRecord], tmp_path: Path) -> None:
    assert read_record(full[0]) == full[1]
    write_record(tmp_path, full[1])
    page = rewrite_report(tmp_path)
    assert page == full[1]
    for name in ("report.json", "report.md", "report.html"):
        assert (tmp_path / name).read_bytes() == (full[0] / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    """Payloads in every field of the record leave the page's tags and attributes those of a harmless record."""

    def record(words: list[str], name: str) -> StudyRecord:
        answers = [
            replace(item(i, i % 2 == 0, float(i % 3)), question=text, answer=text, kind=text, reference_solution=text)
            for i, text in enumerate(words)
        ]
        other = [replace(answer, correct=not answer.correct) for answer in answers]
        first = Arm("sft", name, name, answers, [{"step": 1, name: 1}, {"step": 2, name: 2}], {}, {name: name})
        second = Arm(name, name, name, other, extra_measures={name: Measure(1.0, None, None, 1, name)})
        return StudyRecord(
            name, [first, second], "sft", "accuracy", {name: {name: name}}, [name, *words], [name, *words]
        )

    hostile, harmless = tmp_path / "hostile", tmp_path / "harmless"
    write_report(hostile, record(HOSTILE, " ".join(HOSTILE)))
    write_report(harmless, record([f"harmless {i}" for i in range(len(HOSTILE))], "harmless"))
    page = Page((hostile / "report.html").read_text(encoding="utf-8"))
    calm = Page((harmless / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert set(page.tags) == set(calm.tags)
    assert {(tag, name) for tag, name, _ in page.attributes} == {(tag, name) for tag, name, _ in calm.attributes}
    written = "".join(page.text)
    for shown in ("<script>document.title='owned'</script>", "{{ 7 * 7 }}", "\\x1b[31mred", "\\x00", "\\x9b"):
        assert shown in written
    for shown in ("\\u202e", "\\u2066", "\\u200b", "\\ufeff", "\\u2028", "\\ud800"):
        assert shown in written
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028]", written)
    lines = (hostile / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.search(r"(?<!\\)<", line) and not line.startswith("    ")] == []


def test_visible_keeps_ordinary_text() -> None:
    """Line breaks, tabs, accents, other scripts and emoji (with their joiners) stay; 0x85 and U+E0041 do not."""
    text = "Zeile\n\tnäxt 日本語 👩\u200d🔬 e\u0301"
    assert visible(text) == text
    assert visible("\x85\r\U000e0041") == "\\x85\\x0d\\U000e0041"


def test_one_arm_has_nothing_to_compare(tmp_path: Path) -> None:
    write_report(tmp_path, study(judged("sft", "1100")))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdicts"] == ["Nothing was compared: sft is the only arm with accuracy."]
    assert report["comparisons"] == []
    pages = [(tmp_path / name).read_text() for name in ("report.html", "report.md")]
    assert [page.count("Intervals of means of n below 50") for page in pages] == [1, 1]
    headings = re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert headings == ["Arms", "Verbosity", "Answers side by side"]


def test_a_report_that_compares_nothing_says_what_it_found(tmp_path: Path) -> None:
    """One model: its figure with Wilson's interval of 2 in 4. Findings alone: where they stand."""
    alone = StudyRecord("m", [replace(judged("model", "1100"), role="component")])
    write_report(tmp_path, alone)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdicts"] == ["model: accuracy 50.0 % (95 % interval 15.0 to 85.0, n = 4)."]
    unrated = StudyRecord("s", [Arm("model", "sft", items=[item(1)], role="component")], panels=[CALIBRATION])
    write_report(tmp_path, unrated)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdicts"] == ["There is no total: what was found stands in the sections below."]


def test_an_empty_study_still_gives_a_report(tmp_path: Path) -> None:
    """No answers, no curve: no section at all, and stale pictures are gone."""
    write_report(tmp_path, study(judged("sft", "10"), judged("dpo", "11")))
    assert list((tmp_path / "plots").iterdir())
    write_report(tmp_path, StudyRecord("empty", [Arm("sft", "sft", curve=[{"step": 1, "loss": 2.0}])]))
    assert re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text()) == []
    assert list((tmp_path / "plots").iterdir()) == []
    assert json.loads((tmp_path / "report.json").read_text())["arms"] == {"sft": {}}


def test_without_a_verifier_the_reward_decides() -> None:
    """No answer was judged right or wrong, so there is no accuracy and the paired bootstrap of the reward speaks."""
    arms = [
        Arm("sft", "sft", items=[item(i, reward=0.1 * (i % 4)) for i in range(40)]),
        Arm("ppo", "ppo", items=[item(i, reward=0.1 * (i % 4) + 0.2 + 0.01 * (i % 3)) for i in range(40)]),
    ]
    analysis = analyse(study(*arms))
    assert analysis.headline == "reward"
    assert "accuracy" not in analysis.measures["sft"]
    assert [entry.comparison.test for entry in analysis.comparisons] == ["paired bootstrap by question"]
    assert analysis.verdicts[0].startswith("ppo has higher reward than sft, by 0.210 (")


def test_an_abstention_is_counted_and_never_zero() -> None:
    """Rewards 1, none, NaN: the mean is 1 over n = 1, and two missing ones are stated."""
    arm = Arm("sft", "sft", items=[item(0, reward=1.0), item(1, reward=None), item(2, reward=float("nan"))])
    analysis = analyse(study(arm, metric="reward"))
    assert (analysis.measures["sft"]["reward"].value, analysis.measures["sft"]["reward"].n) == (1.0, 1)
    assert analysis.caveats == ["sft: 2 of 3 answers have no reward."]


def test_pairs_go_by_question_not_by_place() -> None:
    first = judged("sft", "110")
    shuffled = replace(judged("dpo", "110"), items=judged("dpo", "110").items[::-1][:2])
    assert [(a.question_id, b.question_id) for a, b in paired(first, shuffled)] == [("q2", "q2"), ("q1", "q1")]
    assert analyse(study(first, shuffled)).caveats == [
        "dpo against sft: 1 of 3 questions were answered by only one of the two and are left out."
    ]


def test_several_training_runs_are_listed() -> None:
    """Two seeds of dpo against one of sft (right on q0 of 4): right on 3 and on 2 of 4, so +50 and +25 points."""
    runs = [item(i, i < right, seed=seed) for seed, right in ((0, 3), (1, 2)) for i in range(4)]
    analysis = analyse(study(judged("sft", "1000"), Arm("dpo", "dpo", items=runs)))
    assert analysis.comparisons[0].comparison.test == "paired bootstrap by question"
    half = 12.706204736 * math.sqrt(2 * 0.125**2) / math.sqrt(2)  # Student's t with 1 degree of freedom
    odds, reach = math.log(0.6875 / 0.3125), half / 2 / (0.6875 * 0.3125)  # 0.375 lies at 0.6875 between -1 and 1
    low, high = (f"{100 * math.tanh((odds + way) / 2):+.3g}" for way in (-reach, reach))
    assert (low, high) == ("-89.6", "+97.8")
    assert analysis.verdicts[1:] == [
        "dpo against sft, accuracy over 2 training runs: +50, +25 points "
        f"(mean +37.5 points, 95 % interval over runs {low} to {high}, n = 2 runs).",
        "The paired tests resample questions, not training runs.",
    ]


def test_components_are_measured_and_not_compared() -> None:
    base = judged("base", "0000", role="component")
    analysis = analyse(study(judged("sft", "1010"), judged("dpo", "1110"), base))
    assert {entry.comparison.b for entry in analysis.comparisons} == {"dpo"}
    assert analysis.measures["base"]["accuracy"].value == 0.0


def test_samples_are_wins_and_regressions_in_hash_order() -> None:
    """7 wins and 1 regression: five of the seven by SHA-256, and the one; the record's order does not matter."""
    record = study(judged("sft", "100000000"), judged("dpo", "011111110"))
    chosen = samples.choose(record, analyse(record))
    assert [sample.outcome for sample in chosen] == ["win"] * 5 + ["regression"]
    ids = [sample.question.question_id for sample in chosen]
    assert set(ids[:5]) < {f"q{number}" for number in range(1, 8)}
    assert ids[5] == "q0"
    turned = study(*[replace(arm, items=arm.items[::-1]) for arm in record.arms])
    assert [sample.question.question_id for sample in samples.choose(turned, analyse(turned))] == ids


def test_curve_panels_skip_what_is_not_a_curve() -> None:
    """NaN and single points are no curve; 1,000 points are averaged to 250; held-out points are kept as they are."""
    assert curves.curves_of("dpo", "dpo", []) == []
    assert curves.curves_of("dpo", "dpo", [{"step": 1, "loss": 1.0}]) == []
    rows = [
        {"step": s, "loss": 1.0, "margin": float("nan")} | ({"dev/loss": 2.0} if s == 9 else {}) for s in range(1000)
    ]
    panels = curves.curves_of("dpo", "dpo", rows)
    assert [panel.metric for panel in panels] == ["loss"]
    assert len(panels[0].points) == 250
    assert panels[0].points[0] == (1.5, 1.0)
    assert panels[0].held_out == [(9.0, 2.0)]


def test_dpo_is_drawn_against_its_reference() -> None:
    """Log-probabilities are of other pairs at every update, so they scatter; rewards are what the same pairs gained."""
    rows = [{"step": s, **dict.fromkeys(("chosen_logprob", "chosen_reward", "rejected_reward"), s)} for s in (1, 2)]
    assert [found.metric for found in curves.curves_of("dpo", "dpo", rows)] == ["chosen_reward", "rejected_reward"]


def test_an_accuracy_without_any_margin_is_not_drawn() -> None:
    """Where policy and reference are one, margin and accuracy are 0 on every pair: that is no share to begin at."""
    rows = [{"step": s, "margin": m, "accuracy": a} for s, (m, a) in enumerate([(0.0, 0.0), (0.1, 0.6), (-0.1, 0.4)])]
    accuracy, margin = curves.curves_of("dpo", "dpo", rows)
    assert accuracy.points == [(1.0, 0.6), (2.0, 0.4)]
    assert len(margin.points) == 3


def test_formats() -> None:
    """Hand-checked: 3,725 s is 1 h 2 min; a rate's interval is in percent; 0.5 GiB is 512 MiB."""
    assert [wording.duration(seconds) for seconds in (8.24, 245, 3725)] == ["8.2 s", "4 min 5 s", "1 h 2 min"]
    assert wording.range_text(Measure(0.5, 0.25, 0.75, 4, "Wilson", rate=True)) == "25.0 to 75.0"
    assert wording.range_text(Measure(0.5, None, None, 1, "one value")) == "no interval"
    assert [wording.memory(2.0**29), wording.amount(41_234)] == ["512 MiB", "41.2 k"]


def test_impossible_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="baseline: sft: no such arm"):
        study(judged("dpo", "1"))
    with pytest.raises(UserError, match="named more than once"):
        study(judged("sft", "1"), judged("sft", "0"))
    with pytest.raises(UserError, match=r"record\.json: not found"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(UserError, match=r"record\.json: not JSON"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text('{"name": "x", "arms": [{"name": "sft"}]}')
    with pytest.raises(UserError, match=r"record\.json: arms\.0\.stage"):
        read_record(tmp_path)


def test_an_older_record_is_still_read(tmp_path: Path) -> None:
    """Without panels, parts, seeds, KL and roles, which later versions added: the defaults stand in, and it renders."""
    answer = {
        "question_id": "q",
        "question": "1 + 1?",
        "kind": "",
        "answer": "2",
        "tokens": 2,
        "stopped": True,
        "correct": True,
    }
    old = {"name": "old", "arms": [{"name": "sft", "stage": "sft", "items": [answer]}], "baseline": "sft"}
    (tmp_path / "record.json").write_text(json.dumps(old))
    record = rewrite_report(tmp_path)
    assert (record.panels, record.arms[0].role, record.arms[0].items[0].seed) == ([], "candidate", 0)
    headings = re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert headings == ["Arms", "Verbosity", "Answers side by side"]


def test_a_minus_is_a_minus(tmp_path: Path) -> None:
    """A loss of 100 points is announced with a true minus on the page, with a plain one where scripts read."""
    write_report(tmp_path, study(judged("sft", "1" * 20), judged("dpo", "0" * 20)))
    assert "Lower accuracy than sft: dpo (\u2212100.00 points)." in (tmp_path / "report.html").read_text()
    summary = json.loads((tmp_path / "report.json").read_text())["summary"]
    assert summary == ["Lower accuracy than sft: dpo (-100.00 points)."]
