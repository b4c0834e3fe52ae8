"""The page on answers from a server: its recipe runs against the server that its first command starts."""

import json
import re
from pathlib import Path

from smolt.config.rollout_stages import AnswerServer
from smolt.training.online.answer_server import KINDS
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks, table
from tests.serving.test_serve_command import started

PAGE = ROOT / "docs" / "guides" / "rollouts-elsewhere.md"
ADDRESS = "http://127.0.0.1:8000/v1"


def test_its_commands_run(workshop: Path) -> None:
    """doctor finds the server good; four updates, none of their answers stale, each within 1e-4; nothing is left."""
    serve, doctor, train = lines(PAGE)
    (block,) = blocks(PAGE, "yaml")
    assert ADDRESS in block.text
    with started(*serve.split()[2:]) as (_, url):
        (workshop / block.text.split()[1]).write_text(block.text.replace(ADDRESS, url), encoding="utf-8")
        found = json.loads(run(doctor, "--json").stdout)
        (said,) = (check for check in found["checks"] if check["what"] == "server of grpo")
        assert said["ok"] and said["found"].startswith("smolt serve with the model my-model: 8 token ids")
        run(train, "model.dtype=fp32")
    rows = [json.loads(row) for row in (workshop / "runs/served/metrics.jsonl").read_text().splitlines()]
    assert [row["stale"] for row in rows if "stale" in row] == [0, 0, 0, 0]
    assert all(row["mismatch_max"] < 1e-4 for row in rows if row.get("mismatch_max") is not None)
    assert not (workshop / "runs" / "served" / "pushed").exists()


def test_its_tables_are_the_programs() -> None:
    """Every field of the block with its default, and each kind of server that is known."""
    shown = {name: default for names, default, _ in table(PAGE, "field") for name in re.findall(r"\w+", names)}
    assert set(shown) == set(AnswerServer.model_fields)
    for names, default, _ in table(PAGE, "field"):
        for name, value in zip(re.findall(r"\w+", names), default.split(", "), strict=True):
            known = AnswerServer.model_fields[name].default
            assert not isinstance(known, int | float) or float(value) == known
    servers = [row[0].strip("`") for row in table(PAGE, "server")]
    assert [server.split(",")[0] for server in servers[:2]] == [kind.name for kind in KINDS.values()]
