"""The face as a program and as a page: where it listens, what it fetches, what it says when it cannot start."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from tests.ui.conftest import Opener

HOSTILE = {
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_SERVER_PORT": "1",
    "GRADIO_SHARE": "True",
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_ANALYTICS_ENABLED": "True",
    "GRADIO_ROOT_PATH": "/elsewhere",
    "GRADIO_SSR_MODE": "True",
    "GRADIO_MCP_SERVER": "True",
    "GRADIO_TEMP_DIR": "/",
}


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """`smolt ui` under hostile variables, and its address."""
    command = [sys.executable, "-m", "smolt", "ui", "--runs", str(folder / "runs"), "--port", "0", *options]
    environment = {**os.environ, **HOSTILE}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert program.stdout is not None
    found = re.search(r"http://\S+", program.stdout.readline())
    assert found is not None, program.communicate()[1]
    return program, found[0]


def test_it_listens_on_this_machine_alone_whatever_the_variables_say(tmp_path: Path) -> None:
    """Bound on 127.0.0.1; the page has no analytics, and Ctrl-C ends it with 130 and one sentence."""
    program, address = start(tmp_path)
    try:
        port = int(address.rsplit(":", 1)[1])
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        bound = {line[1].split(":")[0] for line in listening if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
        assert bound == {"0100007F"}
        with urlopen(address) as answer:
            page = answer.read().decode()
        assert '"analytics_enabled":false' in page
        assert '"root":"http://127.0.0.1' in page
    finally:
        program.send_signal(signal.SIGINT)
        words = program.communicate(timeout=60)[1]
    assert program.returncode == 130
    assert words.splitlines()[-1] == "smolt ui has ended; labels, votes and runs are on the disk"
    assert "Traceback" not in words


def test_a_face_for_others_needs_a_password(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smolt", "ui", "--host", "0.0.0.0", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: --host 0.0.0.0: others could reach this face")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """Exit code 2 and one sentence with the command."""
    program = (
        "import importlib.util, sys\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
        "from smolt.__main__ import main\nsys.argv = ['smolt', 'ui']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'error: smolt ui needs packages that are not installed: pip install -c constraints.txt "smolt-align[ui]"'
    )


def test_the_page_names_no_other_machine(opened: Opener) -> None:
    """No address outside this machine in the page that is served, and none in its configuration."""
    address = opened()
    for path in ("/", "/config"):
        with urlopen(address + path) as answer:
            found = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", answer.read().decode())
        assert found == []


def test_files_are_not_for_asking(opened: Opener, tmp_path: Path) -> None:
    """Gradio's own doors to files and other servers are closed in the running face too."""
    (tmp_path / "secret.txt").write_text("secret")
    address = opened()
    for path in (f"/gradio_api/file={tmp_path}/secret.txt", f"/file={tmp_path}/secret.txt", "/gradio_api/upload"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(Request(address + path, headers={"Referer": address}))


def test_a_phone_scrolls_in_one_direction(opened: Opener, page: Any) -> None:
    """390 pixels wide, the page is not wider, in any tab."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(opened())
    page.wait_for_selector("button[role=tab]")
    for place in range(page.get_by_role("tab").count()):
        page.get_by_role("tab").nth(place).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
