"""Over-optimisation: does the reward that a training climbs still stand for what is wanted (Gao et al., 2210.10760)?

rating     the answers of a training, rated again by a gold reward that it did not learn from
stretches  proxy and gold along the training, and the rule that says where they part
panel      the finding for a report
"""

from smolt.overoptimisation.panel import Course, overoptimisation_panel
from smolt.overoptimisation.rating import Rated, Rerating, Stretch, into_stretches, parting, rate_again

__all__ = [
    "Course",
    "Rated",
    "Rerating",
    "Stretch",
    "into_stretches",
    "overoptimisation_panel",
    "parting",
    "rate_again",
]
