"""A real `transformers serve` process on loopback; it gives no log-probabilities and ignores the question for them."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.shared import shared_path

TEMPLATE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
PATIENCE = 120.0  # seconds until it must be up, however busy the machine is


def story_teller(directory: Path) -> Path:
    """The public pre-trained model of 264,128 parameters, with the chat template that a chat endpoint needs."""
    directory.mkdir(parents=True)
    for path in shared_path("models/stories260k").iterdir():
        shutil.copyfile(path, directory / path.name)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """One model behind one port; the process can be killed and started again.

    Args:
        model: its directory.
        pinned: whether the server serves no other; else each request names its model.
        dtype: as torch names it; "auto" is that of the weights.
        folder: where its log is written; beside the model's directory unless given.

    Attributes:
        model: its directory, which is also its name there.
        url: the base address.
        process: of the server that runs.
    """

    def __init__(self, model: Path, pinned: bool = True, dtype: str = "auto", folder: Path | None = None) -> None:
        self.model, self._port = model, free_port()
        self._options = [*([str(model)] if pinned else []), "--dtype", dtype]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._log = (folder or model.parent) / f"server-{self._port}.log"
        self.process = self._start()

    def restart(self) -> None:
        """A new process behind the same port."""
        self.process = self._start()

    def kill(self) -> None:
        """SIGKILL, also where it is dead already."""
        self.process.kill()
        self.process.wait()

    def replies(self) -> int:
        """How many questions have been replied to, by all processes together."""
        return self._log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')

    def _start(self) -> "subprocess.Popen[bytes]":
        program = str(Path(sys.executable).with_name("transformers"))
        command = [program, "serve", *self._options, "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            self._await(process)
        except BaseException:
            process.kill()
            raise
        return process

    def _await(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(self.url.removesuffix("/v1") + "/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"transformers serve did not come up: {self._log.read_text()}")


def start_judge(arguments: Sequence[str | Path], folder: Path) -> "subprocess.Popen[bytes]":
    """`smolt judge` as a process of its own, in a working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "smolt", "judge", *map(str, arguments), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
