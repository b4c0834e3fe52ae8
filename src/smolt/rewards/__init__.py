"""Rewards: rules, verifiers and Python functions behind one shape, `(questions, answers) -> list[Score]`."""

from smolt.rewards.build import build_reward, rules_alone
from smolt.rewards.constraints import constraints, read_constraint
from smolt.rewards.linter import Finding, lint_reward
from smolt.rewards.mix import Part, mix
from smolt.rewards.numbers import EXTRACTOR, Extraction, equal_numbers, extract, parse_number
from smolt.rewards.python import python_reward
from smolt.rewards.refusals import refusal, refuses
from smolt.rewards.rules import HINTS, Reward, exact_words, format_hints, gsm8k, length, overlong, per_answer
from smolt.rewards.sentiment import empathy, sentiment

__all__ = [
    "EXTRACTOR",
    "HINTS",
    "Extraction",
    "Finding",
    "Part",
    "Reward",
    "build_reward",
    "constraints",
    "empathy",
    "equal_numbers",
    "exact_words",
    "extract",
    "format_hints",
    "gsm8k",
    "length",
    "lint_reward",
    "mix",
    "overlong",
    "parse_number",
    "per_answer",
    "python_reward",
    "read_constraint",
    "refusal",
    "refuses",
    "rules_alone",
    "sentiment",
]
