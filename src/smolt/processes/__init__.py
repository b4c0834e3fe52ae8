"""Several processes on one piece of work: who is who, work shared out and gathered, and what happens when one dies.

Nothing of it costs anything with one process. No torch here: `smolt.models.forward.process_group` joins the processes.
"""

from smolt.processes.peers import (
    agreed,
    alone,
    as_first_says,
    by_first,
    connect,
    connected,
    first,
    gather,
    local_size,
    ordinal,
    rank,
    share,
    sharing,
    size,
    together,
)

__all__ = [
    "agreed",
    "alone",
    "as_first_says",
    "by_first",
    "connect",
    "connected",
    "first",
    "gather",
    "local_size",
    "ordinal",
    "rank",
    "share",
    "sharing",
    "size",
    "together",
]
