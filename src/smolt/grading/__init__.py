"""Grading: the answers of any tool against gold answers, by a rule that has a name and a version.

rules     the noun Rule, and the rule of a name
choices   the letter of a multiple-choice answer
tables    rows of any tool's files, within stated limits
files     graded files: right, wrong, and not extracted
"""

from smolt.grading.files import Graded, grade_file, write_graded
from smolt.grading.rules import RULES, Grade, Rule, rule_named

__all__ = ["RULES", "Grade", "Graded", "Rule", "grade_file", "rule_named", "write_graded"]
