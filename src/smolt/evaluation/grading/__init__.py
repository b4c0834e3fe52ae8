"""Grading: the answers of any tool against gold answers, by a rule that has a name and a version.

grade_rules   the noun Rule, and the rule of a name
choices       the letter of a multiple-choice answer
answer_table  rows of any tool's files, within stated limits
graded        graded files: right, wrong, and not extracted
"""

from smolt.evaluation.grading.grade_rules import RULES, Grade, Rule, rule_named
from smolt.evaluation.grading.graded import Graded, grade_file, write_graded

__all__ = ["RULES", "Grade", "Graded", "Rule", "grade_file", "rule_named", "write_graded"]
