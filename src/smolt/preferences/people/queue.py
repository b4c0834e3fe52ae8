"""Which pairs an annotator sees, in what order, and which answer on which side.

The order is the same for every annotator of a seed, so that two who stop early have labelled the same pairs; gold
questions come at places of each annotator's own, and so do the sides.
"""

import hashlib
from collections.abc import Sequence

from smolt import randomness
from smolt.errors import UserError
from smolt.preferences.people.nouns import BlindPair, Side

RAREST = 0.001  # a smaller share of gold questions asks none
_ORDER, _PLACE, _SIDE = 1, 2, 3  # what a draw is for


def make_queue(
    pairs: Sequence[BlindPair], gold: Sequence[BlindPair], rate: float, seed: int, annotator: str
) -> tuple[list[BlindPair], int]:
    """An annotator's queue, and the number of pairs left out because both answers are the same.

    Of every 1 / rate entries one, at a random place among them, is a gold question, until one kind is used up; the
    gold questions that are left over are not asked. A gold question is never also asked as an ordinary pair.

    Raises:
        UserError: rate is neither 0 nor in [0.001, 0.5], or nothing is left to label.
    """
    if rate != 0 and not RAREST <= rate <= 0.5:
        raise UserError(f"gold rate: {rate:g} is neither 0 nor between {RAREST} and 0.5")
    wanted = {pair.id: pair for pair in pairs}
    known = {pair.id: pair for pair in gold}
    plain = [pair for name, pair in wanted.items() if name not in known and pair.first != pair.second]
    same = sum(pair.first == pair.second for pair in wanted.values())
    if not plain:
        raise UserError(f"nothing to label: of {len(wanted)} pairs {same} have two equal answers, the rest are gold")
    ordered = [plain[place] for place in randomness.permutation(len(plain), seed, _ORDER)]
    questions = list(known.values())
    mine = [questions[place] for place in randomness.permutation(len(questions), seed, _ORDER, _number(annotator))]
    return _mixed(ordered, mine, rate, seed, annotator), same


def left_side(pair: BlindPair, seed: int, annotator: str) -> Side:
    """Which answer stands on the left: a fair coin, a function of seed, pair and annotator."""
    return "first" if randomness.key(seed, _SIDE, _number(pair.id), _number(annotator)) >> 63 else "second"


def _mixed(plain: list[BlindPair], gold: list[BlindPair], rate: float, seed: int, annotator: str) -> list[BlindPair]:
    """Block k holds the entries from k / rate to (k + 1) / rate, one of them gold."""
    mixed: list[BlindPair] = []
    plain, gold = plain[::-1], gold[::-1]
    block = 0
    while plain and gold and rate > 0:
        size = int((block + 1) / rate) - int(block / rate)
        place = randomness.key(seed, _PLACE, block, _number(annotator)) % size
        for entry in range(size):
            if entry == place:
                mixed.append(gold.pop())
            elif plain:
                mixed.append(plain.pop())
        block += 1
    return mixed + plain[::-1]


def _number(text: str) -> int:
    """63 bits of a text's hash, for use as a counter."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
