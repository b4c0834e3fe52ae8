"""Comparing: the per-item results of two or more arms, from any tool, paired item by item.

results            a file's rows as values with their keys
alignment          the same items of all files, in one order
paired             the paired tests, and how smolt's own evaluations were made
comparison_report  everything that is said of them: on a terminal, as files and as a page
"""

from smolt.evaluation.comparing.comparison_report import as_words, write_comparison
from smolt.evaluation.comparing.paired import Findings, compare_files

__all__ = ["Findings", "as_words", "compare_files", "write_comparison"]
