"""Text of models, files and other programs on a screen: shown, never obeyed. The one rule for pages and terminals."""

import unicodedata

_JOINERS = "\u200c\u200d"  # emoji and several scripts need them
_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


def visible(text: str) -> str:
    r"""The text with every control, direction, invisible and surrogate character written as an escape.

    Line breaks and tabs stay; everything else that a terminal, a browser or an editor would obey rather than show is
    written as its code point: ESC as `\x1b`, a direction override as `\u202e`.
    """
    return "".join(_escape(character) if _hidden(character) else character for character in text)


def _hidden(character: str) -> bool:
    if " " <= character <= "~" or character in "\n\t" or character in _JOINERS:
        return False
    return unicodedata.category(character) in _HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
