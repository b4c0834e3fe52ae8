"""The report: a study record in; report.json, report.md, report.html and plots/ out. It says nothing of its own."""

from smolt.report.records import Arm, Item, LatePart, StudyRecord, read_record, write_record
from smolt.report.writing import rewrite_report, write_report

__all__ = ["Arm", "Item", "LatePart", "StudyRecord", "read_record", "rewrite_report", "write_record", "write_report"]
