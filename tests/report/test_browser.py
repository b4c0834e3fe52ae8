"""The page in a real Chromium: nothing in a record runs or is fetched, nothing overflows a phone, everything prints."""

import functools
import html
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from smolt.report.panels import Chart, Panel, Series, Table
from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.statistics import Measure
from tests.report.records import HOSTILE, item

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")

FIRING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>quiet</title></head><body>
<img src="x" onerror="document.title='owned'"><script>fetch('/beacon')</script></body></html>"""
"""What the payloads would do if anything let them."""

LOUD = [
    *HOSTILE,
    "<img src=/beacon><script>document.title='owned';fetch('/beacon')</script>",
    "<svg><script>document.title='owned'</script></svg><object data=/beacon></object>",
    "</p></article><style>@import '/beacon'; body { background: url(/beacon) }</style>",
    "</style></title><script>document.title='owned'</script>",
    '=HYPERLINK("http://127.0.0.1/beacon")',
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u202e<b onclick=document.title='owned'>\u202c",
    "&lt;script&gt;document.title='owned'&lt;/script&gt;",
    "<details open ontoggle=document.title='owned'>",
    "<input autofocus onfocus=document.title='owned'>",
    "W" * 1_000_000,
]
"""Texts that would change the title, ask for /beacon or break the page out of a phone's width."""


def chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One start of the browser, headless, with a profile of its own."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={profile}", "--virtual-time-budget=1500"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


class Recorder(http.server.SimpleHTTPRequestHandler):
    """Serves a directory on this machine and remembers what was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def hostile_record() -> StudyRecord:
    """Every text of the record a payload: names, questions, answers, parts, facts, paths, panels."""
    name = " ".join(LOUD[-10:-1])
    answers = [
        replace(item(i, i % 2 == 0, float(i % 3)), question=text, answer=text, kind=text[:200], reference_solution=text)
        for i, text in enumerate(LOUD)
    ]
    answers = [replace(answer, components={name: 1.0}, kl=0.5) for answer in answers]
    other = [replace(answer, correct=not answer.correct, tokens=answer.tokens + i) for i, answer in enumerate(answers)]
    curve = [{"step": step, name: float(step)} for step in (1, 2)]
    measure = Measure(0.5, 0.4, 0.6, 9, name)
    chart = Chart(name, name, "bars", name, name, (Series(name, (0.0,), (1.0,), labels=(name,)),))
    panel = Panel(name, name, (name,), (name,), (Table(name, (name, name), ((name, measure),)),), (chart,))
    arms = [
        Arm("sft", name, name, answers, curve, {"seconds": 1.0}, {name: name}, {name: measure}),
        Arm(name, name, name, other, curve, {"seconds": 2.0}, {"path": f"/tmp/{name}"}),
    ]
    return StudyRecord(name, arms, "sft", "accuracy", {"recipe": {name: name}, name: name}, LOUD, LOUD, [panel])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The hostile report, a page on which its payloads fire, and the phone's frame; served from this machine."""
    directory = tmp_path_factory.mktemp("hostile")
    write_report(directory, hostile_record())
    (directory / "firing.html").write_text(FIRING, encoding="utf-8")
    (directory / "phone.html").write_text(FRAME, encoding="utf-8")
    handler = functools.partial(Recorder, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield directory, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


FRAME = """<!doctype html><html lang="en"><head><title>frame</title></head>
<body><iframe src="report.html" width="390" height="800"></iframe><p id="widths"></p><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const wide = [...page.querySelectorAll("body *")].filter(element =>
    element.getBoundingClientRect().right > 391 && !element.closest(".scroll") && !element.closest("svg"));
  const shown = outcome => [...page.querySelectorAll(".sample." + outcome)].filter(one => one.offsetHeight > 0).length;
  const both = [shown("win"), shown("regression")];
  page.querySelector("#show-win").checked = true;
  document.querySelector("#widths").textContent = [page.documentElement.scrollWidth,
    page.documentElement.clientWidth, wide.length, ...both, shown("win"), shown("regression")].join(" ");
});
</script></body></html>"""


def title(dom: str) -> str:
    found = re.search("<title>(.*?)</title>", dom, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def test_the_control_fires(served: tuple[Path, str], tmp_path: Path) -> None:
    """The same payloads, outside the report, change the title and ask for the beacon: the tests below could fail."""
    Recorder.asked.clear()
    done = chromium(tmp_path, "--dump-dom", f"{served[1]}/firing.html")
    assert title(done.stdout) == "owned"
    assert "/beacon" in Recorder.asked


def test_hostile_text_is_inert(served: tuple[Path, str], tmp_path: Path) -> None:
    """The title stays the study's name, no script element exists, and the browser asks for the page alone."""
    Recorder.asked.clear()
    done = chromium(tmp_path, "--dump-dom", f"{served[1]}/report.html")
    assert title(done.stdout) != "owned"
    assert title(done.stdout).endswith(": smolt report")
    assert {"/report.html"} <= set(Recorder.asked) <= {"/report.html", "/favicon.ico"}
    assert not re.search(r"<(script|iframe|object|embed|link|base)\b", done.stdout)
    assert "onerror" not in re.sub(r">[^<]*<", "><", re.sub(r'"[^"]*"', '""', done.stdout))
    assert len(done.stdout) < 8_000_000


def test_a_phone_shows_all_and_the_filter_hides(served: tuple[Path, str], tmp_path: Path) -> None:
    """390 pixels wide, no element reaches out of the page; 5 wins and 5 regressions, of which `Wins` leaves 5 and 0."""
    done = chromium(tmp_path, "--dump-dom", f"{served[1]}/phone.html")
    found = re.search('<p id="widths">(.*?)</p>', done.stdout, re.DOTALL)
    assert found is not None
    scroll, client, wide, *shown = found[1].split(" ")
    assert (scroll, client, wide) == ("390", "390", "0")
    assert shown == ["5", "5", "5", "0"]


def seen_on_a_phone(served: tuple[Path, str], profile: Path, report: str, what: str) -> str:
    """The list that a JavaScript expression makes of `page`, a report 390 pixels wide; joined by blanks."""
    frame = re.sub(r"textContent = \[.*?\]", lambda _: f"textContent = {what}", FRAME, flags=re.DOTALL)
    frame = frame.replace('page.querySelector("#show-win").checked = true;', "")
    (served[0] / report / "phone.html").write_text(frame)
    done = chromium(profile, "--dump-dom", f"{served[1]}/{report}/phone.html")
    found = re.search('<p id="widths">(.*?)</p>', done.stdout, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def test_a_phone_breaks_no_name_of_a_row(served: tuple[Path, str], tmp_path: Path) -> None:
    """390 pixels wide, a part's name in the first column of a table of three arms stays on one line."""
    answers = [item(n, n > 4, 1.0, components={"length.characters": float(n)}) for n in range(10)]
    arms = [Arm(name, "sft", items=answers) for name in ("base", "longer_name", "another_name")]
    write_report(served[0] / "named", StudyRecord("named", arms, "base"))
    names = '[...page.querySelectorAll("td.name bdi")].filter(one => one.textContent.startsWith("length."))'
    found = seen_on_a_phone(served, tmp_path, "named", f"{names}.map(one => one.getClientRects().length)")
    assert found == "1 1"


def test_a_phone_breaks_no_word_of_a_header_and_shades_a_wide_table(served: tuple[Path, str], tmp_path: Path) -> None:
    """Each word of five headers on one line; the table scrolls.

    Its shade's cover is no wider than the shade, so that it shows however little is left.
    """
    share = Measure(0.7, 0.6, 0.8, 200, "Wilson", rate=True)
    columns = ("Arm", "Accuracy", "Training time", "Peak memory", "Parameters")
    row = ("a_name", share, "16 min 40 s", "2.0 GiB", "135 M")
    panel = Panel("sizes", "Sizes", (), (), (Table("Sizes.", columns, (row,)),))
    write_report(served[0] / "wide", StudyRecord("wide", [], panels=[panel]))
    lines = """[...page.querySelectorAll("#sizes th")].flatMap(head => {
      const text = head.firstChild;
      return [...text.data.matchAll(/\\S+/g)].map(word => {
        const range = page.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        return range.getClientRects().length;
      });
    }).concat([...page.querySelectorAll("#sizes .scroll")].map(box =>
      `${box.scrollWidth > box.clientWidth} ${frame.contentWindow.getComputedStyle(box).backgroundSize}`))"""
    found = seen_on_a_phone(served, tmp_path, "wide", lines)
    assert found == "1 1 1 1 1 1 1 true 16px 100%, 16px 100%"


def test_it_prints_with_everything_on_it(served: tuple[Path, str], tmp_path: Path) -> None:
    """The PDF has pages, and the answers that a filter would hide are printed with the rest."""
    target = tmp_path / "report.pdf"
    chromium(tmp_path / "profile", f"--print-to-pdf={target}", f"{served[1]}/report.html")
    pages = re.findall(rb"/Type\s*/Page\b", target.read_bytes())
    assert len(pages) > 1


def test_the_pictures_show_under_the_policy(served: tuple[Path, str], tmp_path: Path) -> None:
    """Light and dark are two different pictures of one size: the style sheet passes its own policy."""
    shots = []
    for name, scheme in (("light", "1"), ("dark", "0")):
        target = tmp_path / f"{name}.png"
        chromium(
            tmp_path / name,
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=800,600",
            f"--screenshot={target}",
            f"{served[1]}/report.html",
        )
        shots.append(target.read_bytes())
    assert all(shot.startswith(b"\x89PNG") for shot in shots)
    assert shots[0] != shots[1]
    assert shots[0][16:24] == shots[1][16:24]
