"""A program in a real terminal: tmux types, and says what is on the screen."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE = 60.0  # seconds for a screen to appear, on a busy machine


class Terminal:
    """A tmux session on a server of its own, 110 columns wide."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def start(self, words: list[str]) -> None:
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "24", *words)

    def see(self, wanted: str) -> str:
        """The screen, once the text is on it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            screen = self.tmux("capture-pane", "-p")
            if wanted in screen:
                return screen
            time.sleep(0.01)
        raise AssertionError(f"{wanted!r} not seen within {PATIENCE} s; the screen is:\n{screen}")

    def press(self, key: str, then: str) -> str:
        """Press a key and wait for a text."""
        self.tmux("send-keys", key)
        return self.see(then)

    def paste(self, text: str) -> None:
        """What a mouse would paste: in brackets, where the program asked for them."""
        self.tmux("set-buffer", "--", text)
        self.tmux("paste-buffer", "-p", "-r")

    def kill(self) -> None:
        """SIGKILL to the program in the terminal."""
        subprocess.run(["kill", "-9", self.tmux("display-message", "-p", "#{pane_pid}").strip()], check=True)
        self.wait()

    def wait(self) -> None:
        """Until the program has ended; the pane stays (remain-on-exit).

        How it ended tmux 3.3a does not always know: about every second exit code of a respawned pane is lost.
        """
        end = time.monotonic() + PATIENCE
        while self.tmux("display-message", "-p", "#{pane_dead}").strip() != "1":
            assert time.monotonic() < end, f"still running after {PATIENCE} s"
            time.sleep(0.01)

    def stop(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)


@contextlib.contextmanager
def tmux_terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal that is gone afterwards; the test is skipped where there is no tmux."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not on this machine")
    opened = Terminal(folder / "tmux")
    try:
        yield opened
    finally:
        opened.stop()
