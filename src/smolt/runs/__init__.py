"""A run is a directory: manifest, rows, checkpoints, result. Locked, written atomically, resumable bit for bit.

storage      writing that survives a crash, a power cut and a full disk
jsontext     JSON that keeps every float and refuses what it would change silently
database     SQLite files that lose nothing
locks        one process in a directory at a time
identity     what a run is made from, and the refusal to continue it with something else
rows         metrics.jsonl and samples.jsonl
rated_answers  an answer with its rating, and its row in every file of answers
checkpoints  saving, verifying, choosing and pruning
directory    `Run`, which puts them together
listing      the runs below a directory and their states, from outside
interrupts   the first Ctrl-C saves, the second leaves
"""

from smolt.runs.checkpoints import Checkpoint
from smolt.runs.directory import PROCESSES, REFUSED, Run, Status
from smolt.runs.interrupts import Interrupts
from smolt.runs.storage import StorageError, atomic_write

__all__ = ["PROCESSES", "REFUSED", "Checkpoint", "Interrupts", "Run", "Status", "StorageError", "atomic_write"]
