"""Comparing: the per-item results of two or more arms, from any tool, paired item by item.

circumstances  how smolt's own evaluations were made
results    a file's rows as values with their keys
alignment  the same items of all files, in one order
findings   the paired tests, and everything that is said of them
words      the same for a terminal
page       the same as files: comparison.json, items.jsonl and a self-contained page
"""

from smolt.comparing.findings import Findings, compare_files
from smolt.comparing.page import write_comparison
from smolt.comparing.words import as_words

__all__ = ["Findings", "as_words", "compare_files", "write_comparison"]
