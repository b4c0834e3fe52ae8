"""From what a study left on the disk to the record that its report is generated from.

places    where every section, model and answer of a study lies
learning  what ppo and grpo sections answered while they learned
choices   what choosing among fewer answers than n would have given
findings  what audits, runs and suites found, as panels
record    arms with their answers, curves, costs and hashes
"""

from smolt.recording.places import ANSWERS, CANDIDATES, Places
from smolt.recording.record import record_of

__all__ = ["ANSWERS", "CANDIDATES", "Places", "record_of"]
