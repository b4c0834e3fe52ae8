"""What sections that learn from a reward answered while they learned: their samples beside their curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from smolt.config import REWARDED, RewardMix, Section
from smolt.report.panels import Panel
from smolt.report.record import LatePart
from smolt.rewards.audit.gold import into_stretches, rate_again
from smolt.rewards.audit.gold_panel import Course, overoptimisation_panel
from smolt.rewards.build import rules_alone
from smolt.runs.rows import RowFile
from smolt.study.places import Places


def gold_panel(places: Places, seed: int) -> Panel | None:
    """Proxy against gold of every section that learned from another reward than study.reward; None with none.

    The gold must be made of rules: they rate thousands of answers again at no cost.
    """
    gold = places.settings[seed].reward
    if gold is None or not rules_alone(gold.parts):
        return None
    learners = [section for section in places.recipe.sections if section.recipe.stage in REWARDED]
    courses = [_course(places, section, seed, gold) for section in learners]
    return overoptimisation_panel([course for course in courses if course is not None])


def _course(places: Places, section: Section, seed: int, gold: RewardMix) -> Course | None:
    recipe: Any = places.seeded(section, seed)
    folder = places.folder(section.name, seed)
    samples = RowFile(folder / "samples.jsonl").rows()
    if recipe.reward == gold or not samples:
        return None
    rating = rate_again(samples, gold)
    curve = RowFile(folder / "metrics.jsonl").rows()
    kl = {row["step"]: float(row["kl"]) for row in curve if row.get("kl") is not None}
    stretches = into_stretches(rating.answers, kl)
    return Course(section.name, described(recipe.reward), described(gold), rating, stretches)


def late_parts(samples: Sequence[Mapping[str, Any]]) -> dict[str, LatePart]:
    """Each part of the reward at the end of a training: over its answers in the last quarter of the updates."""
    updates = sorted({row["step"] for row in samples})
    late = updates[-math.ceil(len(updates) / 4) :]
    found = {}
    for name in sorted({name for row in samples for name in row["components"]}):
        known = [(row["step"], value) for row in samples if (value := row["components"].get(name)) is not None]
        values = [value for step, value in known if step >= late[0]]
        if values:
            least, most = min(value for _, value in known), max(value for _, value in known)
            counts = values.count(0), values.count(most)
            found[name] = LatePart(late[0], late[-1], len(values), counts[0], least, most, counts[1])
    return found


def described(mix: RewardMix) -> str:
    """A reward in a few words: its parts with their weights."""
    return " + ".join(part.name if part.weight == 1 else f"{part.weight:g} {part.name}" for part in mix.parts)
