"""Rollouts from a server: weights as with the same answers drawn here, adapters pushed, stale answers counted."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import smolt
from smolt import randomness
from smolt.cli import app
from smolt.errors import SelfCheckError, UserError
from smolt.models.groups import Groups, join
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.serving.address import Address
from smolt.serving.engine import Engine
from smolt.training.online.answer_server import KINDS
from smolt.training.stage import Training
from tests.serving.conftest import serving
from tests.tiny import tiny_model

QUESTIONS = [f"What is {number} and {number}?" for number in range(6)]
STAGES: dict[str, Callable[..., Training]] = {"grpo": smolt.grpo, "ppo": smolt.ppo, "online_dpo": smolt.online_dpo}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Engine]:
    made = Engine({"tiny": model}, dtype="fp32", adapters=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with serving(engine) as base:
        yield base


def training(stage: str, model: Path, out: Path, updates: int = 3, **fields: Any) -> Training:
    shape: dict[str, Any] = {"group": 4} if stage == "grpo" else {"samples": 4}
    if stage == "ppo":
        shape |= {"inner": {"epochs": 2, "minibatches": 2}, "critic": {"warmup": 0}}
    return STAGES[stage](
        str(model),
        QUESTIONS,
        out=out,
        prompts=3,
        optim={"lr": 1e-2},
        checks={"forecast": False},
        **{"model.dtype": "fp32", "model.threads": 1},
        **shape,
        **{
            "reward": lambda question, answer: float(len(answer.text) % 7),
            "sampling": {"max_tokens": 24},
            "lora": {"rank": 4},
            "budget": {"updates": updates},
            **fields,
        },
    )


def as_a_server_draws(
    policy: Policy, contexts: Sequence[Any], n: int, drawing: Drawing, counter: tuple[int, ...], ids: Sequence[int]
) -> Groups:
    """The answers that `smolt serve` gives to the seeds it is sent."""
    seeds = [randomness.key(*counter, number) % 2**31 for number in ids]
    return join([sample(policy, [one], n, drawing, (seed, 0)) for one, seed in zip(contexts, seeds, strict=True)])


def weights(training: Training) -> dict[str, torch.Tensor]:
    return load_file(training.finish().path / "model" / "adapter_model.safetensors")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("stage", STAGES)
def test_three_updates_have_the_weights_of_the_same_answers_drawn_here(
    stage: str, model: Path, url: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unweighed to 1e-6; log-probabilities are within 1e-4 of the recomputed ones at each update; nothing stays."""
    unweighed: dict[str, Any] = {} if stage == "online_dpo" else {"correction": {"weights": "never"}}
    served = training(stage, model, tmp_path / "served", server=url, **unweighed)
    rows = list(served)
    found = weights(served)
    assert [row["mismatch_max"] < 1e-4 for row in rows] == [True] * 3
    assert [(row["stale"], row["rollout_age"]) for row in rows] == [(0, 0)] * 3
    assert all(row["push_seconds"] > 0 for row in rows)
    assert engine.names == ["tiny"]
    assert not list((tmp_path / "served").glob("pushed*"))
    monkeypatch.setattr("smolt.training.online.rollouts.sample", as_a_server_draws)
    here = weights(training(stage, model, tmp_path / "here", **unweighed))
    assert furthest(found, here) < 1e-6
    assert max(float(value.abs().max()) for name, value in here.items() if "lora_B" in name) > 1e-3


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_answers_may_lag_behind(stage: str, model: Path, url: str, tmp_path: Path) -> None:
    """With max_age 2 the weights of update 1 answer three times: ages 0, 1, 2, 0; all are weighed, the stale apart."""
    rows = list(training(stage, model, tmp_path / "run", 4, server={"url": url, "max_age": 2}))
    assert [row["rollout_age"] for row in rows] == [0, 1, 2, 0]
    assert [row["stale"] for row in rows] == [0, 12, 12, 0]
    assert [row["push_seconds"] > 0 for row in rows] == [True, False, False, True]
    fresh, lagging = (rows[0], rows[3]), rows[1:3]
    assert all(row["mismatch_max"] < 1e-4 and abs(row["importance_weight"] - 1) < 1e-4 for row in fresh)
    assert all(row["mismatch"] > 1e-3 and abs(row["importance_weight"] - 1) > 1e-4 for row in lagging)


def test_groups_without_signal_are_asked_again_of_the_server(model: Path, url: str, tmp_path: Path) -> None:
    """An answer that is too long never varies: each update asks three other questions once, of the same weights."""
    fields = {"advantage": {"resample": 1}, "reward": lambda question, answer: 1.0}
    rows = list(training("grpo", model, tmp_path / "run", 2, server={"url": url, "max_age": 1}, **fields))
    assert [(row["replaced"], row["stale"]) for row in rows] == [(3, 0), (3, 24)]


def test_a_server_that_forgot_the_adapter_gets_it_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started anew between two updates that share the pushed weights: the same weights as without that."""
    engine = Engine({"tiny": model}, dtype="fp32", adapters=2)
    fields: dict[str, Any] = {"server": {"url": "", "max_age": 1}, "correction": {"weights": "auto"}}
    found = []
    with serving(engine) as url:
        fields["server"]["url"] = url
        for forgetful in (False, True):
            run = training("grpo", model, tmp_path / str(forgetful), 2, **fields)
            next(run)
            if forgetful:
                (name,) = engine.names[1:]
                engine.unload_adapter(name)
            assert next(run)["stale"] == 12
            found.append(weights(run))
    engine.close()
    assert furthest(*found) < 1e-4


def test_a_server_that_is_away_ends_the_run_and_the_same_command_continues(
    model: Path, url: str, tmp_path: Path
) -> None:
    """Killed after update 2 of 4: an error that says so; on another port it goes on, to the weights of one go."""
    whole = weights(training("grpo", model, tmp_path / "whole", 4, server=url, correction={"weights": "never"}))
    engine = Engine({"tiny": model}, dtype="fp32", adapters=2)
    fields: dict[str, Any] = {"correction": {"weights": "never"}, "save": {"every": 1}}
    with serving(engine) as base:
        place = {"url": base, "attempts": 1}
        run = training("grpo", model, tmp_path / "run", 4, server=place, **fields)
        assert [next(run)["step"], next(run)["step"]] == [1, 2]
        port = int(base.split(":")[2].split("/")[0])
    with pytest.raises(UserError, match=r"server: .*nobody listens there.*the same command continues"):
        next(run)
    assert (tmp_path / "run" / "pushed").is_dir()
    with serving(engine, Address("127.0.0.1", port)):
        rows = list(again := training("grpo", model, tmp_path / "run", 4, server=place, **fields))
        assert [row["step"] for row in rows] == [3, 4]
        assert furthest(weights(again), whole) < 1e-6
    engine.close()
    assert not (tmp_path / "run" / "pushed").exists()


def test_another_temperature_on_the_server_is_told(
    model: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mismatch check ends the run at update 1, and names what to look for."""
    monkeypatch.setitem(KINDS["smolt"].fields, "temperature", 1.3)
    with pytest.raises(SelfCheckError, match=r"log-probabilities of smolt serve at http.*processed_logprobs"):
        next(training("grpo", model, tmp_path / "run", 1, server=url))


def test_a_temperature_of_the_recipe_is_the_servers(model: Path, url: str, tmp_path: Path) -> None:
    """0.7 is asked for, drawn at, and told."""
    sampling = {"max_tokens": 24, "temperature": 0.7}
    row = next(training("grpo", model, tmp_path / "run", 1, server=url, sampling=sampling))
    assert row["mismatch_max"] < 1e-4


def test_all_weights_are_trained_as_far_as_answers_may_lag(model: Path, url: str, tmp_path: Path) -> None:
    """Without an adapter nothing is pushed: two updates of max_age 1, the second stale."""
    rows = list(training("grpo", model, tmp_path / "run", 2, lora=None, server={"url": url, "max_age": 1}))
    assert [(row["rollout_age"], row["push_seconds"]) for row in rows] == [(0, 0.0), (1, 0.0)]
    assert rows[0]["mismatch_max"] < 1e-4 < 1e-3 < rows[1]["mismatch_max"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lora": None, "server": "http://h/v1"}, "only an adapter can be pushed to a server; add lora"),
        ({"lora": None, "server": {"url": "http://h/v1", "max_age": 1}}, "budget.updates 2 at most with"),
        ({"server": {"url": "http://h/v1", "max_age": 1}, "correction": {"weights": "never"}}, "remove weights: never"),
        ({"server": "h:8000"}, "must be http://HOST or https://HOST"),
        ({"server": {"url": "http://h/v1", "max_age": -1}}, "max_age"),
        ({"server": {"url": "http://h/v1", "key": "NO_SUCH_VARIABLE"}}, "server.key: the environment variable NO_SUCH"),
    ],
)
def test_recipes_that_cannot_be_right_are_refused(
    fields: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    """Before a server is asked anything."""
    with pytest.raises(UserError, match=said):
        training("grpo", model, tmp_path / "run", **fields)


RECIPE = """
stage: grpo
model: {path: MODEL, dtype: fp32, device: cpu, threads: 1}
lora: {rank: 4}
server: URL
correction: {weights: never}
data: questions.jsonl
reward: {name: length, options: {target: 20}}
checks: {forecast: false}
prompts: 3
group: 4
sampling: {max_tokens: 24}
optim: {lr: 1.0e-2}
budget: {updates: 2}
"""


def test_two_processes_have_the_weights_of_one(model: Path, url: str, engine: Engine, tmp_path: Path) -> None:
    """Under torchrun the first asks and pushes for both: to 1e-6; nothing stays on the server."""
    recipe = RECIPE.replace("MODEL", str(model)).replace("URL", url)
    (tmp_path / "served.yaml").write_text(recipe, encoding="utf-8")
    rows = [{"question": question} for question in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc-per-node", "2"]):
        out = str(len(launcher))
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "smolt", "grpo", "served.yaml", "--out", out],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        found.append(load_file(tmp_path / out / "model" / "adapter_model.safetensors"))
    assert furthest(*found) < 1e-6
    assert engine.names == ["tiny"]


def test_doctor_says_that_a_server_is_away(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, and the server's line first among the problems."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    recipe = RECIPE.replace("MODEL", str(model)).replace("URL", f"{{url: {away!r}, attempts: 1}}")
    Path("served.yaml").write_text(recipe, encoding="utf-8")
    Path("questions.jsonl").write_text(json.dumps({"question": QUESTIONS[0]}) + "\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["doctor", "served.yaml", "--json"])
    assert done.exit_code == 2, done.output
    problems = {check["what"]: check["found"] for check in json.loads(done.stdout)["checks"] if not check["ok"]}
    assert list(problems) == ["server of grpo"]
    assert problems["server of grpo"].startswith(f"server: {away}/models: nobody listens there")
