"""Scenario suites: prompts that several models answer, scored and compared scenario by scenario.

asking        the prompts and who rates the answers
independence  a rater must not have learned from what an arm was trained on
measuring     the numbers: every metric by scenario, paired tests with Holm's adjustment
panels        the numbers as findings of a report
standalone    models outside a study
"""

from smolt.suites.asking import answers_file, suite_exams
from smolt.suites.independence import held_out_measures, origins_of_run, refuse_dependent
from smolt.suites.panels import suite_panels
from smolt.suites.standalone import run_suites

__all__ = [
    "answers_file",
    "held_out_measures",
    "origins_of_run",
    "refuse_dependent",
    "run_suites",
    "suite_exams",
    "suite_panels",
]
