"""`smolt judge` with real language models: here, and behind a real `transformers serve` process that is killed too."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smolt.config import make_recipe
from smolt.preferences.judges.both_orders import both_orders
from smolt.rewards.llm_judge.prompts import LETTERS, pairwise_prompt
from smolt.rewards.llm_judge.rubrics import load_rubric
from smolt.training.algorithms import STAGES
from tests import judge_stubs as stubs
from tests.preferences.test_judge_command import judged, kept, write_pairs
from tests.served_judge import Served, start_judge, story_teller
from tests.shared import shared_path

PAIRS = 40
RUBRIC = "name: short\nversion: 1\npairwise: Which answer is better?\npointwise: How good is the answer?\n"
UNDER_WAY = 2  # requests at once


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[Served]:
    """The story teller behind an address."""
    server = Served(story_teller(tmp_path / "teller"))
    yield server
    server.kill()


def test_a_story_teller_behind_an_address(teller: Served, tmp_path: Path) -> None:
    """It tells stories in place of a verdict: 6 of 6 human pairs are failures, asked once, and the card says so."""
    hh = shared_path("data/hh/harmless_test_pairs.jsonl")
    out = tmp_path / "out"
    options: list[str | Path] = [hh, "--url", teller.url, "--model", teller.model]
    options += ["--rubric", "harmless", "--limit", "6", "--out", out]
    found = judged(*options)
    assert (found["n"], found["failures"], found["decided"], found["soft"], found["unreached"]) == (6, 6, 0, 0, 0)
    assert found["unreliable"] and kept(out / "verdicts.sqlite") == 12 == teller.replies()
    assert "hard labels, parsed" in (out / "judge-card.md").read_text()
    assert judged(*options)["status"] == "already complete" and teller.replies() == 12


def test_a_story_teller_here(tmp_path: Path) -> None:
    """Its window of 512 tokens holds about half of the human pairs, the others abstain; its word is worth nothing."""
    hh, model = shared_path("data/hh/harmless_test_pairs.jsonl"), shared_path("models/stories260k")
    out = tmp_path / "out"
    told: list[str | Path] = ["--rubric", "harmless", "--limit", "40", "--probes", "2", "--no-gate", "--out", out]
    found = judged(hh, "--model", model, *told)
    assert found["n"] == 40 and 10 <= found["judged"] <= 30 and found["soft"] == found["judged"]
    assert found["judged"] + found["abstentions"] == 40 and found["failures"] == 0
    assert list(found["reasons"]) == ["longer than the judge's window of 512 tokens"]
    assert found["unreliable"] and "log-probabilities" in (out / "judge-card.md").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story teller after 40 updates on which letter has the answer that begins with "good"; its directory."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "rubric.yaml").write_text(RUBRIC)
    rubric = load_rubric(str(folder / "rubric.yaml"))
    rows = []
    for pair in stubs.pairs(200)[PAIRS:]:
        for showing in both_orders(pair):
            (turn,) = pairwise_prompt(rubric, showing).turns
            letter = LETTERS[0 if showing.first.startswith(stubs.GOOD) else 1]
            rows.append({"prompt": turn.content, "completion": letter})
    random.Random(0).shuffle(rows)
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = make_recipe(
        "sft",
        model={"path": str(story_teller(folder / "teller")), "threads": 1},
        data=str(folder / "letters.jsonl"),
        batch=16,
        optim={"lr": 2e-3},
        budget={"updates": 40},
    )
    STAGES["sft"](recipe, out=folder / "sft").finish()
    return folder / "sft" / "model"


@pytest.fixture
def server(trained: Path) -> Iterator[Served]:
    """The trained judge behind an address."""
    served = Served(trained)
    yield served
    served.kill()


def outcomes(out: Path) -> list[tuple[str, float]]:
    """What was said of each pair, in the order of the file."""
    rows = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    return [(row["outcome"], row["label"]) for row in rows]


def wait(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline, "waited for two minutes"
        time.sleep(0.01)


@pytest.fixture
def options(trained: Path, server: Served, tmp_path: Path) -> list[str]:
    """The judge's options for pairs it was not trained on; `out` is in the working directory."""
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)
    rubric = trained.parents[1] / "rubric.yaml"
    return [
        *(str(tmp_path / "pairs.jsonl"), "--url", server.url, "--model", str(server.model), "--rubric", str(rubric)),
        *("--out", str(tmp_path / "out"), "--probes", "0", "--parallel", str(UNDER_WAY)),
    ]


def whole(out: Path, server: Served) -> None:
    """Every pair decided for the good answer, 80 verdicts kept, and at most those under way at a kill asked again."""
    assert outcomes(out) == [("first", 1.0)] * PAIRS
    assert kept(out / "verdicts.sqlite") == 2 * PAIRS <= server.replies() <= 2 * PAIRS + UNDER_WAY
    assert json.loads((out / "judge-card.json").read_text())["agreement"] == 1.0


@pytest.mark.slow
def test_a_trained_judge_here_and_behind_an_address(
    options: list[str], server: Served, trained: Path, tmp_path: Path
) -> None:
    """Hard labels parsed from words there, soft ones from log-probabilities here: the same 40 verdicts."""
    there = judged(*options)
    assert (there["soft"], there["decided"], there["failures"], there["swap_consistency"]) == (0, PAIRS, 0, 1.0)
    assert "hard labels, parsed" in (tmp_path / "out" / "judge-card.md").read_text()
    whole(tmp_path / "out", server)
    rubric = trained.parents[1] / "rubric.yaml"
    here = judged(options[0], "--model", trained, "--rubric", rubric, "--probes", "0", "--out", tmp_path / "here")
    assert (here["soft"], here["agreement"]) == (PAIRS, 1.0)
    assert outcomes(tmp_path / "here") == outcomes(tmp_path / "out")


@pytest.mark.slow
def test_the_judging_is_killed(options: list[str], server: Served, tmp_path: Path) -> None:
    """SIGKILL after ten verdicts; the same command asks for the others alone."""
    process = start_judge(options, tmp_path)
    wait(lambda: kept(tmp_path / "out" / "verdicts.sqlite") >= 10)
    process.kill()
    process.wait()
    assert kept(tmp_path / "out" / "verdicts.sqlite") < 2 * PAIRS
    assert judged(*options)["status"] == "complete"
    whole(tmp_path / "out", server)


@pytest.mark.slow
@pytest.mark.parametrize("attempts", [1, 9])
def test_the_server_is_killed(options: list[str], server: Served, tmp_path: Path, attempts: int) -> None:
    """SIGKILL after ten verdicts. With one try the command ends with code 2 and the same command continues.

    With nine tries, whose pauses are two minutes together, it sits the restart out.
    """
    process = start_judge([*options, "--attempts", str(attempts)], tmp_path)
    wait(lambda: kept(tmp_path / "out" / "verdicts.sqlite") >= 10)
    server.kill()
    if attempts == 1:
        assert process.wait() == 2 and not (tmp_path / "out" / "preferences.jsonl").exists()
    server.restart()
    if attempts == 1:
        assert judged(*options, "--attempts", "1")["status"] == "complete"
    assert process.wait() == (2 if attempts == 1 else 0)
    whole(tmp_path / "out", server)
