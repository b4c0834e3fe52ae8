"""Preference data under audit before a model learns from them: duplicates, contradictions, bias, leakage, doubt."""

from smolt.preferences.audit.data_audit import AuditOptions, Found, audit_panel, audit_preferences
from smolt.preferences.audit.labelled_pairs import LabelledPair, read_items
from smolt.preferences.audit.suspects import Ranking, rank_by_cross_fit

__all__ = [
    "AuditOptions",
    "Found",
    "LabelledPair",
    "Ranking",
    "audit_panel",
    "audit_preferences",
    "rank_by_cross_fit",
    "read_items",
]
