"""The tab of runs: states, figures, a curve that moves while its run trains, reports and nothing else."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from smolt.report.report import write_report
from smolt.runs import Run
from smolt.runs.identity import MANIFEST
from smolt.runs.listing import run_at, runs_below
from smolt.ui.tabs.line_picture import HIGH, WIDE
from smolt.ui.tabs.runs_tab import details_of, line_of
from tests.report.test_browser import hostile_record
from tests.runs.test_listing import begun, manifest
from tests.ui.conftest import Opener, tab

HOSTILE = "<img src=x onerror=alert(1)>"


def trained(directory: Path, stage: str, rows: list[dict[str, Any]]) -> Run:
    run = Run.open(directory, manifest=manifest(stage))
    for row in rows:
        run.log(row)
    return run


def test_figures_and_curves_of_a_run(tmp_path: Path) -> None:
    """Reward 0.1 to 0.4 over 4 updates: the figure says both ends, the curve has 4 points within the picture."""
    rows = [{"step": step, "reward": step / 10, "kl": 0.0, "seconds": 30.0} for step in range(1, 5)]
    with trained(tmp_path / "one", "grpo", rows):
        page = details_of(tmp_path, "one")
    assert "update 4, 2 min" in page
    assert "<dt>Reward</dt><dd>0.400</dd><small>from 0.100</small>" in page
    assert page.count('<figure class="curve">') == 2
    found = re.search('class="thin" points="([^"]*)"', page)
    assert found is not None
    points = [tuple(map(float, point.split(","))) for point in found[1].split()]
    assert len(points) == 4
    assert points[0][0] < points[-1][0] <= WIDE
    assert HIGH >= points[0][1] > points[-1][1] >= 0  # it rises; y counts from the top


def test_why_a_run_ended_is_said(tmp_path: Path) -> None:
    with trained(tmp_path / "one", "ppo", [{"step": 1, "reward": 0.0, "stop": "KL 12 exceeds its budget 10"}]):
        pass
    page = details_of(tmp_path, "one")
    assert "KL 12 exceeds its budget 10" in page
    assert "the command it was started with continues it" in page


def test_a_study_shows_arms_verdicts_and_sections(tmp_path: Path) -> None:
    with trained(tmp_path / "study", "study", []) as study:
        begun(tmp_path / "study" / "sft").close()
        study.complete({"arms": {"sft": {"accuracy": 0.5}, "dpo": {"accuracy": 0.625}}, "verdicts": ["dpo wins"]})
    page = details_of(tmp_path, "study")
    assert "<p>dpo wins</p>" in page
    assert "<bdi>dpo</bdi></th><td>0.625</td>" in page
    assert "<bdi>sft</bdi></th><td>◐ interrupted</td>" in page


def test_text_of_a_run_is_inert(tmp_path: Path) -> None:
    """A run's name and its events are shown as they are written."""
    row = {"step": 1, "reward": 0.0, "events": [f"{HOSTILE}\x1b[31m"]}
    with trained(tmp_path / "<b>one", "grpo", [row]):
        page = details_of(tmp_path, "<b>one")
    assert "<img" not in page
    assert "<b>one" not in page
    assert "&lt;img" in page
    assert "\\x1b[31m" in page
    assert line_of(run_at(tmp_path, "<b>one"), ["<b>one"]) == "<b>one  ◐ interrupted  grpo"


def test_the_list_shows_what_lies_in_what(tmp_path: Path) -> None:
    """A section below its study, a run in a plain folder by its whole name, in the order of their starts."""
    for name in ("study", "study/sft", "study/dpo", "folder/alone"):
        begun(tmp_path / name).close()
    for seconds, name in enumerate(("study", "study/sft", "study/dpo", "folder/alone")):
        os.utime(tmp_path / name / MANIFEST, (seconds, seconds))
    runs = runs_below(tmp_path)
    lines = [line_of(run, [run.name for run in runs]).split("  ")[0] for run in runs]
    assert lines == ["folder/alone", "study", "· sft", "· dpo"]


def test_only_reports_are_served(opened: Opener, tmp_path: Path) -> None:
    """report.html of a run, under a policy without scripts; no other file, no link, nothing outside: 404."""
    runs = tmp_path / "runs"
    begun(runs / "one").close()
    begun(runs / "study" / "two").close()
    (tmp_path / "secret.html").write_text("secret")
    (runs / "one" / "report.html").write_text("<h1>The report</h1>")
    (runs / "study" / "two" / "report.html").symlink_to(tmp_path / "secret.html")
    address = opened()
    with urlopen(f"{address}/report/one") as answer:
        assert answer.read() == b"<h1>The report</h1>"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "sandbox" in answer.headers["content-security-policy"]
    names = [
        "two",
        "study/two",
        "..",
        "../secret",
        "one/manifest.json",
        "%2e%2e/secret.html",
        "one/../../secret",
        "one%00",
    ]
    for name in names:
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/report/{name}")


def test_a_curve_moves_while_its_run_trains(opened: Opener, page: Any, tmp_path: Path) -> None:
    """Two updates are drawn; a third, logged while the page is open, appears in it; then the run is complete."""
    run = begun(tmp_path / "runs" / "live")
    tab(page, opened(), "Runs")
    page.wait_for_selector(".curve .thin")
    assert page.inner_text("#run .state").startswith("● running")
    before = page.get_attribute(".curve .thin", "points")
    assert len(before.split()) == 2
    run.log({"step": 3, "loss": 0.1})
    page.wait_for_function("document.querySelector('.curve .thin').getAttribute('points').split(' ').length == 3")
    assert page.inner_text(".curve .latest") == "0.100"
    run.complete({"updates": 3})
    run.close()
    page.get_by_text("✓ complete").first.wait_for()


def test_a_report_is_opened_by_keyboard(opened: Opener, page: Any, tmp_path: Path) -> None:
    begun(tmp_path / "runs" / "one").close()
    (tmp_path / "runs" / "one" / "report.html").write_text("<h1>The report</h1>")
    tab(page, opened(), "Runs")
    link = page.get_by_role("link", name="Open the report")
    link.focus()
    with page.context.expect_page() as other:
        page.keyboard.press("Enter")
    other.value.wait_for_selector("h1")
    assert other.value.inner_text("h1") == "The report"


def test_arrows_go_through_the_runs(opened: Opener, page: Any, tmp_path: Path) -> None:
    """Down, down, up, as fast as keys come: the run that is shown is the one that is chosen."""
    for name in ("a", "b", "c"):
        begun(tmp_path / "runs" / name).close()
    tab(page, opened(), "Runs")
    page.wait_for_selector("#run h2")
    order = page.eval_on_selector_all("#run-list input", "all => all.map(one => one.value)")
    assert sorted(order) == ["a", "b", "c"]
    page.locator("#run-list input").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_function(f"document.querySelector('#run h2').innerText == '{order[1]}'")
    page.wait_for_timeout(2500)  # the clock has looked once more
    assert page.inner_text("#run h2") == order[1]
    assert page.eval_on_selector("#run-list input:checked", "one => one.value") == order[1]


def test_a_whole_report_is_shown_and_runs_nothing(opened: Opener, page: Any, tmp_path: Path) -> None:
    """A report full of payloads: its pictures load, its filter works, its title stays, it asks for nothing else."""
    run = tmp_path / "runs" / "one"
    begun(run).close()
    write_report(run, hostile_record())
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    address = opened()
    page.goto(f"{address}/report/one")
    assert page.title().endswith(": smolt report")
    pictures = "Array.from(document.images).filter(one => one.getClientRects().length)"
    widths = page.evaluate(f"{pictures}.map(one => one.naturalWidth)")
    assert len(widths) > 0
    assert min(widths) > 0
    page.locator("label[for=show-win]").click()
    assert page.locator(".sample.regression").first.is_hidden()
    assert {url for url in asked if not url.startswith("data:")} <= {f"{address}/report/one", f"{address}/favicon.ico"}
