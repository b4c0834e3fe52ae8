"""Scenario suites: prompts that several models answer, scored and compared scenario by scenario.

suite_prompts   the prompts and who rates the answers
independence    a rater must not have learned from what an arm was trained on
suite_measures  the numbers: every metric by scenario, paired tests with Holm's adjustment
panel           the numbers as findings of a report
side_by_side    models outside a study
"""

from smolt.evaluation.suites.independence import held_out_measures, origins_of_run, refuse_dependent
from smolt.evaluation.suites.panel import suite_panels
from smolt.evaluation.suites.side_by_side import run_suites
from smolt.evaluation.suites.suite_prompts import answers_file, suite_exams

__all__ = [
    "answers_file",
    "held_out_measures",
    "origins_of_run",
    "refuse_dependent",
    "run_suites",
    "suite_exams",
    "suite_panels",
]
