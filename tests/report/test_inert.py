"""Text that a screen would obey is shown instead: one rule for chat, labeller, progress, comparisons and pages."""

import io
import unicodedata

import pytest
from rich.console import Console

from smolt.cli.progress import Display
from smolt.report.inert import visible
from smolt.report.panels import Panel, Table
from smolt.report.terminal import panel_words

HOSTILE = "\x1b[31mred\x1b[0m\r\x9b2J\u202eevil\u2066\u200b\ufeff\U000e0041"
SHOWN = "\\x1b[31mred\\x1b[0m\\x0d\\x9b2J\\u202eevil\\u2066\\u200b\\ufeff\\U000e0041"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é 猫 👩‍👩‍👧 שלום", "plain\n\ttext é 猫 👩‍👩‍👧 שלום"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m\x90q\x7f", "\\x9b31m\\x90q\\x7f"),
        ("over\rwrite\b\b\x00", "over\\x0dwrite\\x08\\x08\\x00"),
        ("\u202eevil\u2066\u2028", "\\u202eevil\\u2066\\u2028"),
        ("zero\u200bwidth\u2060\ufeff", "zero\\u200bwidth\\u2060\\ufeff"),
        ("soft\xadhyphen", "soft\\xadhyphen"),
        ("\ud800", "\\ud800"),
        (HOSTILE, SHOWN),
    ],
)
def test_text_is_inert(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_no_control_or_format_character_but_four_is_left() -> None:
    """Line break and tab, and the two joiners that emoji and several scripts need."""
    hidden = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")]
    assert len(hidden) > 200
    assert [character for character in hidden if visible(character) == character] == ["\t", "\n", "\u200c", "\u200d"]


def test_findings_on_a_terminal_are_inert() -> None:
    table = Table(HOSTILE, (HOSTILE, "n"), ((HOSTILE, 1),))
    words = panel_words(Panel("name", "title", (HOSTILE,), (HOSTILE,), (table,)))
    assert words.count(SHOWN) == 5
    assert visible(words) == words


def test_remarks_of_a_training_are_inert() -> None:
    text = io.StringIO()
    with Display(Console(file=text, width=200)) as display:
        display.remark(HOSTILE)
    assert text.getvalue() == SHOWN + "\n"
