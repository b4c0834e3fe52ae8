"""`smolt judge` through the command line: the contract, continuing, a kill in the middle, wrong inputs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.config import make_recipe
from smolt.data import Source, load
from smolt.training.algorithms import STAGES
from tests import judge_stubs as stubs
from tests.judge_server import Script, serving
from tests.reliability.scenes import write_inputs
from tests.tiny import tiny_model

CONTRACT = {"n", "swap_consistency", "position_bias", "ties", "failures", "agreement"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pairs, and `bad+` answers that are longer than the good ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMOLT_JUDGE_KEY", raising=False)
    write_pairs(tmp_path / "pairs.jsonl", 12)
    return tmp_path


def write_pairs(path: Path, count: int) -> None:
    rows = []
    for pair in stubs.pairs(count):
        good, bad = (pair.first, pair.second) if pair.gold == 1.0 else (pair.second, pair.first)
        rows.append({"prompt": pair.question.context[0].content, "chosen": good, "rejected": bad + "!"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def smolt(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def judged(*arguments: str | Path) -> dict[str, Any]:
    done = smolt(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) >= CONTRACT
    return found


def refused(*arguments: str | Path) -> str:
    done = smolt(*arguments)
    assert done.exit_code == 2 and "Traceback" not in done.output, done.output
    return done.stderr


def test_a_rule(folder: Path) -> None:
    """shorter is right on all 12 pairs, longer on none; both are exact, and no order matters to them."""
    right = judged("pairs.jsonl", "--rule", "shorter", "--out", "right", "--probes", "0")
    wrong = judged("pairs.jsonl", "--rule", "longer", "--out", "wrong", "--probes", "0")
    assert (right["agreement"], wrong["agreement"]) == (1.0, 0.0)
    assert {(one["n"], one["swap_consistency"], one["position_bias"], one["ties"]) for one in (right, wrong)} == {
        (12, 1.0, 0.0, 0)
    }
    labels = load(Source("right/preferences.jsonl"), "preferences").records
    given = load(Source("pairs.jsonl"), "preferences").records
    assert labels == given
    assert {path.name for path in Path("right").iterdir()} >= {"verdicts.jsonl", "judge-card.json", "judge-card.md"}


def test_a_verifier_abstains_where_there_is_no_solution(folder: Path) -> None:
    rows = [{"prompt": "1 + 1?", "chosen": "So it is 2. #### 2", "rejected": "It is 3."}, {"prompt": "Hm?"}]
    rows[1] |= {"chosen": "Yes.", "rejected": "No."}
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = judged("sums.jsonl", "--rule", "gsm8k", "--out", "out")
    assert (found["decided"], found["abstentions"], found["agreement"]) == (1, 1, 1.0)
    assert "1 decided, 0 ties; 1 abstention, 0 failures." in Path("out/judge-card.md").read_text()


def test_pairs_of_unequal_length_can_be_left_out(folder: Path) -> None:
    """The good answer is 7 or 8 characters, the bad one as long and an exclamation mark more: over 10 %, under 20 %."""
    assert judged("pairs.jsonl", "--rule", "shorter", "--matched", "0.05", "--out", "a")["abstentions"] == 12
    assert judged("pairs.jsonl", "--rule", "shorter", "--matched", "0.2", "--out", "b")["decided"] == 12


def test_the_same_command_again(folder: Path) -> None:
    """Already complete with the same figures; another rule there is refused; --fresh sets it aside."""
    first = judged("pairs.jsonl", "--rule", "shorter", "--out", "out")
    again = judged("pairs.jsonl", "--rule", "shorter", "--out", "out")
    assert (first["status"], again["status"]) == ("complete", "already complete")
    assert {**first, "status": ""} == {**again, "status": ""}
    assert "started with something else" in refused("pairs.jsonl", "--rule", "longer", "--out", "out")
    assert judged("pairs.jsonl", "--rule", "longer", "--out", "out", "--fresh")["agreement"] == 0.0
    assert Path("out.old-1").is_dir()


def test_a_language_model(folder: Path) -> None:
    """Soft labels in 0.5..1, in a file that a reward model reads; the tiny window makes all but these abstain."""
    model = tiny_model(folder / "tinyjudge")
    config = model / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 128', '"max_position_embeddings": 512'))
    told = ("pairs.jsonl", "--model", "tinyjudge", "--out", "out", "--probes", "2")
    assert "no labels written: 0% of 12 verdicts stay the same" in refused(*told)
    assert Path("out/judge-card.md").is_file() and not Path("out/preferences.jsonl").exists()
    found = judged(*told, "--no-gate")
    assert (found["kind"], found["n"], found["decided"] + found["ties"]) == ("local", 12, 12)
    labels = load(Source("out/preferences.jsonl"), "preferences").records
    assert len(labels) == found["decided"] and all(0.5 <= one.weight < 1 for one in labels)
    card = Path("out/judge-card.md").read_text()
    assert "## The judge: tinyjudge" in card and "log-probabilities" in card
    small = tiny_model(folder / "small")
    assert judged("pairs.jsonl", "--model", small, "--out", "small-out")["abstentions"] == 12
    said = smolt("pairs.jsonl", "--model", small, "--out", "small-out").stdout
    assert "not judged: 12 (longer than the judge's window of 128 tokens)" in said


def test_a_reward_model_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verdicts are probabilities, the same in both orders; the labels train DPO, weights and all."""
    monkeypatch.chdir(write_inputs(tmp_path))
    recipe = make_recipe("reward", model="model", data="preferences.jsonl", gate=False, budget={"updates": 1})
    STAGES["reward"](recipe, out=Path("scorer")).finish()
    found = judged("preferences.jsonl", "--model", "scorer", "--out", "out", "--probes", "0")
    assert (found["kind"], found["swap_consistency"], found["position_bias"]) == ("model", 1.0, 0.0)
    dpo = make_recipe("dpo", model="model", data="out/preferences.jsonl", budget={"updates": 1})
    assert STAGES["dpo"](dpo, out=Path("dpo")).finish().path == Path("dpo")


def test_an_endpoint(folder: Path) -> None:
    script = Script()
    with serving(script) as url:
        found = judged("pairs.jsonl", "--url", url, "--model", "stub", "--out", "out", "--probes", "0")
    assert (found["kind"], found["soft"], found["agreement"], found["failures"]) == ("endpoint", 12, 1.0, 0)
    assert found["tokens"] == [24 * 50, 24] and not found["unreliable"]
    assert "by log-probabilities" in Path("out/judge-card.md").read_text()


def test_an_endpoint_without_logprobs_is_named_in_the_card(folder: Path) -> None:
    with serving(Script(logprobs=False)) as url:
        found = judged("pairs.jsonl", "--url", url, "--model", "stub", "--out", "out", "--probes", "0")
    assert (found["soft"], found["decided"]) == (0, 12)
    assert "by hard labels, parsed from its words" in Path("out/judge-card.md").read_text()


def test_a_reply_that_never_comes_leaves_the_directory_incomplete(folder: Path) -> None:
    """One question gets status 500: incomplete, and the same command asks for its two showings alone."""
    bad = {"Question 3?"}
    script = Script(fault=lambda number, body: 500 if bad & {body["messages"][0]["content"].splitlines()[3]} else None)
    with serving(script) as url:
        command = ("pairs.jsonl", "--url", url, "--model", "stub", "--out", "out", "--probes", "0", "--attempts", "1")
        found = judged(*command)
        assert (found["status"], found["unreached"], found["decided"]) == ("incomplete", 1, 11)
        bad.clear()
        before = len(script.seen)
        assert judged(*command)["status"] == "complete"
        assert len(script.seen) == before + 2


def test_killed_in_the_middle(folder: Path) -> None:
    """SIGKILL after some replies: what was kept is not asked again, at most those under way are, and none is lost."""
    write_pairs(folder / "pairs.jsonl", 40)
    script = Script(fault=lambda number, body: time.sleep(0.02))
    with serving(script) as url:
        options = ["pairs.jsonl", "--url", url, "--model", "stub", "--out", "out", "--probes", "0", "--parallel", "2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "smolt", "judge", *options, "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        store = folder / "out" / "verdicts.sqlite"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and kept(store) < 10:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        saved = kept(store)
        assert 10 <= saved < 80
        found = judged(*options)
    asked = Counter(json.dumps(body["messages"]) for body in script.seen)
    assert (found["status"], found["decided"], found["agreement"]) == ("complete", 40, 1.0)
    assert len(asked) == 80 and sum(asked.values()) <= 80 + 2 and kept(store) == 80


def kept(store: Path) -> int:
    if not store.is_file():
        return 0
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def test_a_shared_cache(folder: Path) -> None:
    """Two directories, one file of verdicts: the second asks nothing."""
    script = Script()
    with serving(script) as url:
        for out in ("a", "b"):
            judged("pairs.jsonl", "--url", url, "--model", "stub", "--out", out, "--probes", "0", "--cache", "v.sqlite")
    assert len(script.seen) == 24


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "who judges? give --model MODEL, --url URL with --model NAME, or --rule NAME"),
        (["--rule", "longer", "--model", "m"], "--rule stands alone"),
        (["--rule", "loonger"], """rule: 'loonger' is unknown; did you mean "longer"?"""),
        (["--rule", "xyzzy"], "rule: 'xyzzy' is unknown; known: longer, shorter, gsm8k"),
        (["--url", "http://127.0.0.1:9/v1"], "who judges?"),
        (["--url", "localhost", "--model", "m"], "must be http://HOST"),
        (["--model", "nowhere/at/all"], "no such directory"),
        (["--rule", "longer", "--rationale", "5"], "a rule gives no rationale"),
        (["--model", "model", "--rubric", "kindness"], "rubric: 'kindness' is neither a file nor one of the shipped"),
        (["--rule", "longer", "--format", "orca"], "pairs.jsonl:1: question: is missing"),
    ],
)
def test_wrong_inputs(folder: Path, arguments: list[str], said: str) -> None:
    tiny_model(folder / "model")
    assert said in refused("pairs.jsonl", *arguments, "--out", "out")
    assert not (folder / "out" / "preferences.jsonl").exists()


def test_bad_rows_can_be_left_out(folder: Path) -> None:
    with Path("pairs.jsonl").open("a") as file:
        file.write('{"prompt": "Hi?", "chosen": "Yes."}\n')
    assert "pairs.jsonl:13: rejected: is missing" in refused("pairs.jsonl", "--rule", "longer", "--out", "out")
    assert judged("pairs.jsonl", "--rule", "longer", "--out", "out", "--skip-bad")["n"] == 12


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/v1", "no request got a usable reply (nobody listens there, 1 tries). Does the server run"),
        ("https://{server}/v1", "no request got a usable reply (no secure connection; is it http?, 1 tries)"),
        ("http://{server}/v1", "no request got a usable reply (refused with status 400: no)"),
    ],
)
def test_one_pair_and_a_wrong_address(folder: Path, url: str, said: str) -> None:
    """Two requests without a reply are an error as many are, also where only few are made."""
    write_pairs(folder / "one.jsonl", 1)
    with serving(Script(fault=lambda number, body: 400)) as address:
        place = url.format(server=address.removeprefix("http://").removesuffix("/v1"))
        options = ["one.jsonl", "--url", place, "--model", "m", "--attempts", "1", "--out", "out"]
        assert said in refused(*options)
    assert not (folder / "out" / "preferences.jsonl").exists()


def test_data_that_are_no_pairs(folder: Path) -> None:
    Path("questions.jsonl").write_text('{"question": "1 + 1?"}\n')
    assert "but no preferences" in refused("questions.jsonl", "--rule", "longer", "--out", "out")
    Path("v.sqlite").write_text("not a database, but long enough to be read as one: " * 30)
    message = refused("pairs.jsonl", "--rule", "longer", "--out", "out2", "--cache", "v.sqlite")
    assert "v.sqlite: cannot be used as a store of verdicts (file is not a database)" in message
