"""No memory is exit 71 with advice, whichever library says so and in whatever words."""

import errno
import sqlite3
from pathlib import Path

import pytest
import torch

from smolt.cli.outcomes import Outcome, _guarded
from smolt.errors import UserError, out_of_memory
from smolt.models.forward.quiet import read_by_library
from smolt.runs import StorageError
from smolt.runs.database import Database


class SafetensorError(Exception):
    """As safetensors' own."""


ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    SafetensorError("Cannot allocate memory (os error 12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_library_without_memory_is_not_a_damaged_model(error: Exception) -> None:
    assert out_of_memory(error)

    def work() -> Outcome:
        with read_by_library("model.path: m"):
            raise error

    found = _guarded(work, "terminated")
    assert (found.exit_code, found.words.startswith("out of memory")) == (71, True)


def test_other_errors_are_still_the_models() -> None:
    assert not out_of_memory(RuntimeError("the memory of this"))
    with pytest.raises(UserError, match="m: cannot be read: KeyError"), read_by_library("m"):
        raise KeyError("x")


def test_a_store_that_cannot_be_written_is_the_disks_fault(tmp_path: Path) -> None:
    """As on a file system that is read only: 74, not "name another file"."""
    path = tmp_path / "labels.db"
    Database(path, "a label store", "CREATE TABLE one (x);\n", 7, 1).close()
    store = Database(path, "a label store", "", 7, 1)
    store.rows("PRAGMA query_only = ON")
    with pytest.raises(StorageError) as told, store.transaction() as connection:
        connection.execute("INSERT INTO one VALUES (1)")
    store.close()
    assert told.value.errno == errno.EROFS
    assert sqlite3.SQLITE_READONLY == 8
