"""From pairs to judgements: both orders, what is known taken from the cache, the rest asked and kept as it comes."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from smolt.judges.cache import VerdictCache, asked_once
from smolt.judges.nouns import Showing
from smolt.judges.verdicts import Judge, Judgement, Opinion, Pair, silent, weigh
from smolt.records import Preference

Tell = Callable[[int, int], None]


def judge_pairs(
    judge: Judge,
    pairs: Sequence[Pair],
    cache: VerdictCache,
    *,
    tau: float = 0.0,
    matched: float | None = None,
    tell: Tell = lambda done, total: None,
) -> list[Judgement]:
    """A judgement for each pair.

    Args:
        judge: who compares.
        pairs: what is compared.
        cache: what is known is not asked again.
        tau: margins of at most this are ties.
        matched: pairs whose lengths differ by a larger share of the longer answer are not judged.
        tell: hears how many of how many showings are done; may raise to end it there.
    """
    apart = silent("abstained", f"lengths differ by more than {matched or 0:.0%}")
    near = [matched is None or length_gap(pair) <= matched for pair in pairs]
    asked = [pair for pair, is_near in zip(pairs, near, strict=True) if is_near]
    opinions = iter(judge_showings(judge, [one for pair in asked for one in both_orders(pair)], cache, tell))
    return [weigh(next(opinions), next(opinions), tau) if is_near else weigh(apart, apart, tau) for is_near in near]


def judge_showings(
    judge: Judge, showings: Sequence[Showing], cache: VerdictCache, tell: Tell = lambda done, total: None
) -> list[Opinion]:
    """An opinion of each showing; equal showings are asked once. What got no reply is not kept."""
    keys = [key_of(judge, showing) for showing in showings]
    known: dict[str, Opinion] = {}
    for found in asked_once(cache, keys, showings, judge.compare, Opinion.from_row):
        known |= found
        tell(len(known), len(set(keys)))
    return [known[key] for key in keys]


def both_orders(pair: Pair) -> tuple[Showing, Showing]:
    """The pair as it is, and with its answers changing places."""
    return Showing(pair.question, pair.first, pair.second), Showing(pair.question, pair.second, pair.first)


def length_gap(pair: Pair) -> float:
    """How much shorter the shorter answer is, as a share of the longer one's characters."""
    longer = max(len(pair.first), len(pair.second))
    return 0.0 if longer == 0 else 1 - min(len(pair.first), len(pair.second)) / longer


def as_preferences(
    pairs: Sequence[Pair], judgements: Iterable[Judgement], drop_inconsistent: bool = False
) -> list[Preference]:
    """The decided pairs, the better answer as `chosen`, with the judge's probability as the weight (0.5 to 1)."""
    made = []
    for pair, judgement in zip(pairs, judgements, strict=True):
        if judgement.probability is None or not judgement.decided or (drop_inconsistent and not judgement.consistent):
            continue
        first = judgement.outcome == "first"
        weight = judgement.probability if first else 1 - judgement.probability
        chosen, rejected = (pair.first, pair.second) if first else (pair.second, pair.first)
        made.append(Preference(pair.question.context, chosen, rejected, weight))
    return made


def key_of(judge: Judge, showing: Showing) -> str:
    """SHA-256 of judge, question, answers and their order."""
    turns = [[turn.role, turn.content] for turn in showing.question.context]
    content: list[Any] = [judge.identity, turns, showing.question.solution, showing.first, showing.second]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
