"""Comparing: the per-item results of two or more arms, from any tool, paired item by item.

results          a file's rows as values with their keys
alignment        the same items of all files, in one order
paired           the paired tests, and how smolt's own evaluations were made
sentences        everything that is said of them, for a terminal
comparison_page  the same as files: comparison.json, items.jsonl and a self-contained page
"""

from smolt.evaluation.comparing.comparison_page import write_comparison
from smolt.evaluation.comparing.paired import Findings, compare_files
from smolt.evaluation.comparing.sentences import as_words

__all__ = ["Findings", "as_words", "compare_files", "write_comparison"]
