r"""The letter of a multiple-choice answer. A version of the rule never changes.

VERSION "choice-1", in this order; the first way that finds a letter decides:

1. the whole answer is a letter: `B`, `(B)`, `B.`, `**B**`, in either case.
2. `answer is B`, `Answer: (B)`, `\boxed{B}`: the last such words.
3. the answer begins with a letter and its mark: `B. Paris`, `(B) Paris`.
4. the last capital letter in brackets, or alone at the end: `so (C)`, `I pick C.`

Letters are A to J. A letter inside a word is never read.
"""

import re

VERSION = "choice-1"
LONGEST_TEXT = 20_000

_LETTER = r"[\s*_\"'(\[{$]*([A-Ja-j])[\s*_\"')\]}$]*[.:]?"
_WHOLE = re.compile(rf"{_LETTER}\s*")
_SAID = re.compile(
    r"(?:\b(?i:answer(?:\s+is)?|choice\s+is)|\\boxed)\s*:?[\s*_\"'(\[{$]*(?:\\text\{)?"
    r"(?:([A-J])|([a-j])(?=[)\]}*]|[.,]?\s*$))(?![A-Za-z0-9'])",
    re.MULTILINE,
)
_FIRST = re.compile(r"[\s*_\"]*(?:\(([A-Ja-j])\)|([A-J])[.):])(?![A-Za-z0-9])")
_BRACKETED = re.compile(r"\(([A-J])\)|(?<![A-Za-z0-9])([A-J])\W*\Z")


def choice(text: str) -> str | None:
    """The chosen letter as a capital, or None."""
    read = text[-LONGEST_TEXT:]
    whole = _WHOLE.fullmatch(read.strip())
    if whole is not None:
        return whole[1].upper()
    said = [found[1] or found[2] for found in _SAID.finditer(read)]
    if said:
        return said[-1].upper()
    first = _FIRST.match(read) if len(text) <= LONGEST_TEXT else None
    if first is not None:
        return (first[1] or first[2]).upper()
    last = [found[1] or found[2] for found in _BRACKETED.finditer(read)]
    return last[-1] if last else None
