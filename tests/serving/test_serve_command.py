"""`smolt serve` as a process: what it prints, how it ends, and what it refuses before anything is loaded."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from typer.testing import CliRunner

from smolt.cli import app
from smolt.models.forward.kernels import kernels
from tests.serving.conftest import Models

ENDLESS = {"model": "llama", "messages": [{"role": "user", "content": "Hi."}], "stream": True, "n": 60}


def program(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "smolt", "serve", *map(str, arguments)]


@contextlib.contextmanager
def started(*arguments: str | Path, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process and its base address, once it has said it."""
    process = subprocess.Popen(
        program(*arguments, "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("smolt serve: http://127.0.0.1:"), process.stderr.read() if process.stderr else ""
        yield process, line.split()[2]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_within_seconds(number: signal.Signals, code: int, models: Models) -> None:
    """In the midst of 60 answers: exit code 130 and 143, one line and no traceback on stderr, within 8 seconds."""
    with started(models("llama")) as (process, url):
        assert [model["id"] for model in httpx.get(f"{url}/models").json()["data"]] == ["llama"]
        with httpx.stream("POST", f"{url}/chat/completions", json=ENDLESS, timeout=60) as answer:
            next(answer.iter_bytes())
            began = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        assert process.returncode == code
        assert time.monotonic() - began < 8
        assert "Traceback" not in said
        assert said.splitlines()[-1] == "smolt serve has ended"


def test_weights_in_int8_are_said_at_the_start(models: Models) -> None:
    """What they change, in a sentence for each model, on stderr; a model that has none is refused with exit code 2."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    with started(models("llama"), "--weights", "int8") as (process, _):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert f"{models('llama')}: weights in int8, 0 MB more: over 248 tokens of a text the log-probabilities" in said
    done = CliRunner().invoke(app, ["serve", str(models("gpt2")), "--weights", "int8", "--port", "0"])
    assert done.exit_code == 2
    assert "no lean step for gpt2; it is there for llama, mistral, qwen2, qwen3. Leave it out" in done.output


def test_the_key_of_the_environment(models: Models) -> None:
    """SMOLT_API_KEY is asked for; no line shows it."""
    with started(f"own={models('llama')}", SMOLT_API_KEY="of-the-environment") as (process, url):
        assert httpx.get(f"{url}/models").status_code == 401
        found = httpx.get(f"{url}/models", headers={"authorization": "Bearer of-the-environment"})
        assert found.json()["data"][0]["id"] == "own"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
        assert "of-the-environment" not in out + said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere/model",), "nowhere/model"),
        (("MODEL", "--host", "0.0.0.0"), "--host 0.0.0.0: others could reach this server"),
        (("one=MODEL", "one=other"), "one is MODEL already; give it another name: OTHER=other"),
        (("=", "MODEL"), "names no model"),
        (("MODEL", "--port", "TAKEN"), "cannot listen there (Address already in use); give another with --port"),
        (("MODEL", "--host", "192.0.2.1", "--api-key", "k"), "cannot listen there"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: tuple[str, ...], message: str, models: Models) -> None:
    """Exit code 2 and one line that names the place."""
    model = str(models("llama"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"MODEL": model, "TAKEN": str(taken.getsockname()[1])}
        done = CliRunner().invoke(
            app, ["serve", *(re.sub("MODEL|TAKEN", lambda name: known[name[0]], one) for one in arguments)]
        )
    assert done.exit_code == 2, done.output
    assert message.replace("MODEL", model) in done.output
    assert "Traceback" not in done.output


def test_a_model_that_cannot_be_read_ends_it_at_the_start(models: Models, tmp_path: Path) -> None:
    """Damaged weights: exit code 2 before anything is answered."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in models("llama").iterdir():
        (damaged / file.name).write_bytes(b"\x00" * 9 if file.suffix == ".safetensors" else file.read_bytes())
    done = CliRunner().invoke(app, ["serve", str(damaged), "--port", "0"])
    assert done.exit_code == 2
    assert "damaged" in done.output and "Traceback" not in done.output


def test_the_extra_is_named_where_it_is_missing(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command that installs it, exit code 2."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    done = CliRunner().invoke(app, ["serve", str(models("llama"))])
    assert done.exit_code == 2
    assert 'pip install -c constraints.txt "smolt-align[serve]"' in done.output


def test_help_loads_no_library() -> None:
    """`smolt serve --help` leaves torch, starlette and uvicorn alone."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom smolt.cli import app\n"
        "CliRunner().invoke(app, ['serve', '--help'])\n"
        "import json; print(json.dumps([n for n in ('torch', 'starlette', 'uvicorn') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []
