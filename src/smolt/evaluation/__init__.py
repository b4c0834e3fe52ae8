"""Measuring models: answers to questions rated by one reward, pairs told apart, texts predicted.

exam        the same questions for every arm of a study
tasks       what can be measured, and where its data come from
subject     what a measurement is, whatever is measured
answering   questions as a measurement
choosing    best-of-n
likelihood  pairs and texts as measurements
measures    from rows to numbers with intervals
shards      parts of one evaluation, and putting them together
measuring   `evaluate`: one model, one task, one directory
"""

from smolt.evaluation.choosing import Candidate, best_of_n, read_candidates, write_candidates
from smolt.evaluation.exam import Exam, kl_to, open_exam, read_items, take, write_items
from smolt.evaluation.measures import majority
from smolt.evaluation.measuring import Evaluation, evaluate
from smolt.evaluation.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "Candidate",
    "Evaluation",
    "Exam",
    "Task",
    "best_of_n",
    "evaluate",
    "kl_to",
    "majority",
    "open_exam",
    "read_candidates",
    "read_items",
    "take",
    "write_candidates",
    "write_items",
]
