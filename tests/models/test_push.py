"""`smolt push` against a stand-in of the hub's interface on this machine: what goes, what stays, what is refused."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from smolt import __version__
from smolt.cli import app
from smolt.models.merging import PROOF, merge
from tests.models.test_merging import adapter
from tests.tiny import tiny_model

# The hub's client hands bytes to its HTTP library in a way that the library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "someone/my-model"
TOKEN = "hf_standin"


@dataclass
class Hub:
    """What the stand-in was asked and has.

    Attributes:
        status: of every reply where it is none that succeeds.
        made: the repositories that were made.
        files: path in the repository -> its bytes.
        large: SHA-256 -> bytes that were uploaded apart.
        tokens: that came with requests.
        asked: paths of the requests.
        message: of the commit.
    """

    address: str = ""
    status: int = 200
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    message: str = ""

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any] | None:
        """The reply to one request; None for what is unknown."""
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return {"url": f"{self.address}/{NAME}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == f"/api/models/{NAME}/preupload/main":
            return {"files": [self._mode(file["path"]) for file in json.loads(body)["files"]]}
        if path == f"/{NAME}.git/info/lfs/objects/batch":
            return {"transfer": "basic", "objects": [self._place(entry) for entry in json.loads(body)["objects"]]}
        if method == "PUT" and path.startswith("/large/"):
            self.large[path.removeprefix("/large/")] = body
            return {}
        if path == f"/api/models/{NAME}/commit/main":
            for line in body.splitlines():
                self._commit(**json.loads(line))
            return {"commitUrl": f"{self.address}/{NAME}/commit/1", "commitOid": "1" * 40, "success": True}
        return None

    def _mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def _place(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "actions": {"upload": {"href": f"{self.address}/large/{entry['oid']}"}}}

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "header":
            self.message = value["summary"]
        elif key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        else:
            self.files[value["path"]] = self.large[value["oid"]]


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the server's hub."""

    def do_POST(self) -> None:
        hub: Hub = vars(self.server)["hub"]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        hub.asked.append(path)
        if "Authorization" in self.headers:
            hub.tokens.add(self.headers["Authorization"])
        found = hub.answer(self.command, path, body) if hub.status == 200 else {"error": "no"}
        reply = json.dumps(found or {}).encode()
        self.send_response(404 if found is None else hub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Nothing on the test's standard error."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Hub(f"http://127.0.0.1:{server.server_port}")
        vars(server)["hub"] = found
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client as it is outside the suite, with a token and a home of the test's own."""
    for name, value in (
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
        ("HF_TOKEN_PATH", str(tmp_path / "token")),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)


def push(address: str, *words: object) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", address)
        return CliRunner().invoke(app, ["push", *map(str, words)])


def test_a_merged_model_goes_with_its_card(tmp_path: Path, hub: Hub) -> None:
    """Shown first, with nothing sent; then byte for byte what was shown, and neither notes nor a file of somebody's."""
    merge(str(adapter(tmp_path)), tmp_path / "merged")
    (tmp_path / "merged" / "secrets.txt").write_text("mine")
    (tmp_path / "merged" / "more").mkdir()
    shown = push(hub.address, "merged", NAME)
    assert shown.exit_code == 0, shown.stderr
    assert hub.asked == []
    assert "nothing was sent; --yes uploads this to someone/my-model (made private if there is none)" in shown.stdout
    assert f"left here: more, secrets.txt, {PROOF}" in shown.stdout
    done = push(hub.address, "merged", NAME, "--yes", "--json")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    expected = {"README.md", "config.json", "generation_config.json", "model.safetensors", "rendering.json"}
    assert (
        set(hub.files)
        == set(facts["files"])
        == expected
        | {
            "chat_template.jinja",
            "tokenizer.json",
            "tokenizer_config.json",
        }
    )
    for name, sent in hub.files.items():
        assert sent == (tmp_path / "merged" / name).read_bytes(), name
        assert facts["files"][name] == len(sent)
        assert re.search(rf"^ *{len(sent):,}  {re.escape(name)}$", shown.stdout, re.MULTILINE)
    assert set(hub.large) == {hashlib.sha256(hub.files["model.safetensors"]).hexdigest()}
    assert b"an adapter merged in fp32 into" in hub.files["README.md"]
    assert str(tmp_path) not in "".join(
        sent.decode() for name, sent in hub.files.items() if not name.endswith(".safetensors")
    )
    assert (facts["status"], facts["address"]) == ("complete", f"{hub.address}/{NAME}")
    assert [(made["name"], made["organization"], made["visibility"]) for made in hub.made] == [
        ("my-model", "someone", "private")
    ]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert hub.message == f"A model from smolt {__version__}"


def test_the_hubs_own_variables(tmp_path: Path, hub: Hub) -> None:
    """A process of its own finds address and token in the environment, and says one sentence."""
    tiny_model(tmp_path / "model")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "smolt", "push", "model", NAME, "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **own}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"complete: {hub.address}/{NAME}\n") and set(hub.files) >= {"README.md", "config.json"}


def test_a_card_is_made_where_there_is_none(tmp_path: Path, hub: Hub) -> None:
    """The directory stays as it is; the card says only what is known."""
    own = tiny_model(tmp_path / "model")
    before = sorted(file.name for file in own.iterdir())
    assert push(hub.address, "model", NAME, "--yes", "--public").exit_code == 0
    assert sorted(file.name for file in own.iterdir()) == before
    card = hub.files["README.md"].decode()
    assert card == (
        "---\nlibrary_name: transformers\ntags: [smolt]\n---\n\n# model\n\nA language model with weights of its own.\n"
    )
    assert hub.made[0]["visibility"] == "public"


def test_the_card_of_a_run(tmp_path: Path) -> None:
    """What it started from by its name only, stage, seed and the figures of its record; no place of this machine."""
    tiny_model(tmp_path / "base")
    rows = [{"prompt": f"What is {number}?", "completion": f"It is {number}."} for number in range(8)]
    Path("shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("tune.yaml").write_text(
        "model: {path: base, device: cpu, dtype: fp32}\ndata: {path: shown.jsonl}\nbudget: {updates: 2}\nbatch: 4\n"
    )
    tuned = CliRunner().invoke(app, ["sft", "tune.yaml", "--out", "runs/tuned"])
    assert tuned.exit_code == 0, tuned.output
    done = push("http://127.0.0.1:9", "runs/tuned", NAME, "--json")
    facts = json.loads(done.stdout)
    card = facts["card"]
    assert card.startswith("---\nlibrary_name: transformers\ntags: [smolt]\n---\n\n# tuned\n")
    assert "A language model with weights of its own, from `base`." in card
    assert "- stage: `sft`" in card and "- started from: `base`" in card and "| last update: loss |" in card
    assert str(tmp_path) not in card and facts["files"]["README.md"] == len(card.encode())


def test_the_token_of_the_log_in(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a variable the hub's own log-in is used; without either nothing is asked."""
    tiny_model(tmp_path / "model")
    words = ("model", NAME, "--yes")
    monkeypatch.delenv("HF_TOKEN")
    none = push(hub.address, *words)
    assert none.exit_code == 2 and hub.asked == []
    assert "no token of the hub: set HF_TOKEN, or log in once with `hf auth login`" in none.stderr
    (tmp_path / "token").write_text("hf_login")
    assert push(hub.address, *words).exit_code == 0
    assert hub.tokens == {"Bearer hf_login"}


def test_offline_and_refusals(tmp_path: Path, hub: Hub) -> None:
    """One sentence and exit code 2, whatever ends it."""
    tiny_model(tmp_path / "model")
    words = ("model", NAME, "--yes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        offline = push(hub.address, *words)
    assert (offline.exit_code, hub.asked) == (2, [])
    assert "error: offline: HF_HUB_OFFLINE is set, so nothing can go to a hub" in offline.stderr
    hub.status = 403
    refused = push(hub.address, *words)
    assert refused.exit_code == 2
    assert f"error: {NAME}: the hub refuses (403): the token may not write there" in refused.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"http://127.0.0.1:{server.getsockname()[1]}"
    away = push(free, *words)
    assert away.exit_code == 2 and f"error: {NAME}: the hub cannot be reached (ConnectError" in away.stderr


def test_what_must_not_go(tmp_path: Path) -> None:
    """An adapter whose base nobody else has, a path of this machine, a name that is none; before anything is asked."""
    path = adapter(tmp_path)
    own = tmp_path / "base"
    shutil.copytree(own, tmp_path / "told")
    config = tmp_path / "told" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "trained_on": [str(tmp_path)]}))
    nowhere = "http://127.0.0.1:9"
    for words, message in (
        ((path, NAME), "base_model_name_or_path: "),
        (("told", NAME), f"config.json: trained_on: '{tmp_path}' is a path of this machine"),
        (("base", "my-model"), "my-model: is no name of a repository; say whose it is, OWNER/NAME"),
        (("base", "someone/my model"), "someone/my model: is no name of a repository, OWNER/NAME"),
        (("missing", NAME), "missing"),
        (("base/config.json", NAME), "is a file and no GGUF"),
    ):
        done = push(nowhere, *words, "--yes")
        assert done.exit_code == 2 and message in done.stderr, done.stderr
