"""The Python programs of the documentation run as written, with fewer updates."""

import re
import runpy
from pathlib import Path

import pytest

from tests.docs.workshop import PAGES, README, blocks

PROGRAMS = {page.name: [block.text for block in blocks(page, "python")] for page in PAGES}
MOST_UPDATES = 2


def shortened(program: str) -> str:
    return re.sub(r'("updates": )\d+', rf"\g<1>{MOST_UPDATES}", program)


def test_the_readme_needs_ten_lines() -> None:
    """The API in ten statements or fewer, 14 lines at most."""
    program = PROGRAMS[README.name][0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 14


@pytest.mark.parametrize("page", [name for name, programs in PROGRAMS.items() if programs])
def test_programs_run(page: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, each in a namespace of its own; what the README's prints is the model's directory."""
    for number, program in enumerate(PROGRAMS[page]):
        path = workshop / f"{page}-{number}.py"
        path.write_text(shortened(program), encoding="utf-8")
        runpy.run_path(str(path))
    if page == README.name:
        printed = capsys.readouterr().out.splitlines()
        assert Path(printed[-1]).joinpath("config.json").is_file()
        assert len(printed) == MOST_UPDATES + 1
