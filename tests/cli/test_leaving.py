"""A command's process ends with all that Python does at its end but the taking apart of modules."""

import subprocess
import sys

LEAVING = """
import atexit, concurrent.futures, sys
from smolt.__main__ import leave

class Told:
    def __del__(self):
        print("taken apart", flush=True)

told = Told()
atexit.register(print, "at exit")
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(print, "in a thread")
print("before", end=" ")
leave(130)
"""


def test_threads_and_what_is_to_be_done_at_exit_but_no_module_is_taken_apart() -> None:
    """A pool that nobody shut down ends too; its exit code is the command's."""
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "")
    assert "taken apart" not in done.stdout
    assert done.stdout.endswith("at exit\n")
    assert "in a thread" in done.stdout


def test_a_command_leaves_so() -> None:
    code = "import atexit, smolt.__main__ as m; m.leave = lambda code: print('left', code); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "recipe", "show", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "left 2\n"
