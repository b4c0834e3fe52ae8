"""Findings as plain data, and how they are shown; a report says nothing that its record does not hold.

panels     a finding with its evidence, as plain data
record     what a report is generated from
analysis   the tests, done once
pairing    answers side by side
findings   every panel that a record supports, in order; each from its file in sections
pictures   charts and training curves
report     report.json, report.md, report.html and plots/
markdown, page, tables, wording, terminal   how it is said
"""
