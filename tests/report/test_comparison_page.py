"""The page of `smolt compare` in a real Chromium: nothing in the rows runs, and what would run does elsewhere."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smolt.cli import app

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
LOUD = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script></style></title>\x1b[2J\u202e"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


def dumped(page: Path, profile: Path) -> str:
    """The document after a moment in the browser."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=1500"]
    command += ["--disable-background-networking", f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_rows_do_not_run(tmp_path: Path) -> None:
    """The payload fires in a bare page and is text in the comparison's."""
    control = tmp_path / "control.html"
    control.write_text(f"<!doctype html><title>quiet</title><body>{LOUD}</body>", encoding="utf-8")
    assert "<title>owned</title>" in dumped(control, tmp_path / "one")
    for name, divisor in (("a", 2), ("b", 3)):
        rows = [{"id": f"{n}{LOUD}", "question": LOUD, "answer": LOUD, "correct": n % divisor == 0} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b")]
    assert CliRunner().invoke(app, ["compare", *paths, "--out", str(tmp_path / "out")]).exit_code == 0
    document = dumped(tmp_path / "out" / "comparison.html", tmp_path / "two")
    assert "<title>b against a: smolt compare</title>" in document
    assert "owned" in document and "<script" not in document and '<img src="x"' not in document
