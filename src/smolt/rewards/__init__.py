"""Who scores one answer, behind one shape: `(questions, answers) -> list[Score]`; a reward may abstain.

rules, constraints, refusals, tone   what needs no model
stated                               a proper score of the probabilities that an answer states
python                               a function of the user's
learned                              a reward model, or several
llm_judge                            a language model that grades
mix, build                           the weighted sum, and what a recipe's `reward:` block asks for
audit                                whether a reward is worth training on

What loads a model (learned, llm_judge, build) is imported from its own file, so that the rules stay quick to load.
"""

from smolt.rewards.audit.linter import Finding, lint_reward
from smolt.rewards.constraints import constraints, read_constraint
from smolt.rewards.mix import Part, mix
from smolt.rewards.python import python_reward
from smolt.rewards.refusals import refusal, refuses
from smolt.rewards.rules import HINTS, Reward, exact_words, format_hints, gsm8k, length, overlong, per_answer
from smolt.rewards.stated import confidence, probabilities
from smolt.rewards.tone import empathy, sentiment

__all__ = [
    "HINTS",
    "Finding",
    "Part",
    "Reward",
    "confidence",
    "constraints",
    "empathy",
    "exact_words",
    "format_hints",
    "gsm8k",
    "length",
    "lint_reward",
    "mix",
    "overlong",
    "per_answer",
    "probabilities",
    "python_reward",
    "read_constraint",
    "refusal",
    "refuses",
    "sentiment",
]
