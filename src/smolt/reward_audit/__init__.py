"""Is a reward model worth training on? Held-out pairs, baselines, length, calibration, probes, and a gate.

words      a bag of words as a preference model
figures    the numbers, from leads and length gaps
probes     made-up answers that no reader would choose
auditing   one reward model on held-out pairs
opening    the same from files
panel      the finding for a report
"""

from smolt.reward_audit.auditing import RewardAudit, assemble, audit, leads_of
from smolt.reward_audit.figures import calibration_error
from smolt.reward_audit.opening import audit_model
from smolt.reward_audit.panel import audit_panel, warnings

__all__ = [
    "RewardAudit",
    "assemble",
    "audit",
    "audit_model",
    "audit_panel",
    "calibration_error",
    "leads_of",
    "warnings",
]
