"""Adapters loaded beside a model while it is served, and answers as token ids with their log-probabilities."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers
from smolt.models.locating import locate
from smolt.models.rendering import load_renderer
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import save_policy
from smolt.serving.address import Address
from smolt.serving.engine import Engine
from smolt.serving.stream import Request
from tests.serving.conftest import Models, policy_of, serving
from tests.tiny import ARCHITECTURES, Architecture, tiny_model

PROMPT = [5, 6, 7, 8]
ASKED = {"prompt": PROMPT, "max_tokens": 40, "seed": 3, "n": 4, "logprobs": 0, "return_token_ids": True}


def adapter(base: Path, folder: Path, seed: int, lora: LoRA | None = None) -> tuple[Path, Policy]:
    """An adapter with weights that show, in a directory, and as a policy."""
    policy = open_policy(locate(str(base)), choose_precision("cpu", "fp32"), lora or LoRA(rank=4), seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    folder.mkdir()
    save_policy(policy, load_renderer(str(base)), folder)
    return folder, policy


def asked(url: str, model: str, **more: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}/completions", json={**ASKED, "model": model, **more}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return choices


def furthest(policy: Policy, choices: list[dict[str, Any]]) -> float:
    """The largest difference of a log-probability that was told from that of the training forward."""
    groups = from_answers([PROMPT], [[choice["token_ids"] for choice in choices]])
    with torch.no_grad():
        found = policy(groups)[0]
    told = [choice["logprobs"]["token_logprobs"] for choice in choices]
    assert [len(row) for row in told] == groups.lengths.tolist()
    return max(float((torch.tensor(row) - found[at, : len(row)]).abs().max()) for at, row in enumerate(told))


@pytest.fixture
def served(models: Models) -> Iterator[tuple[Engine, str]]:
    engine = Engine({"tiny": models("llama")}, dtype="fp32", adapters=2)
    with serving(engine) as url:
        yield engine, url
    engine.close()


def load(url: str, name: str, path: Path, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/load_lora_adapter", json={"lora_name": name, "lora_path": str(path), **more}, timeout=60)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_name_answers_with_its_own_weights(architecture: Architecture, models: Models, tmp_path: Path) -> None:
    """Base and two adapters, asked in turn over one network: within 1e-4 of the training forward, and unlike."""
    base = models(architecture)
    engine = Engine({"tiny": base}, dtype="fp32", adapters=2)
    policies = {"tiny": policy_of(base)}
    with serving(engine) as url:
        for number in (1, 2):
            folder, policies[f"v{number}"] = adapter(base, tmp_path / str(number), number)
            assert load(url, f"v{number}", folder).text == f"Success: LoRA adapter 'v{number}' added successfully."
        for name in ("v1", "tiny", "v2", "v1", "tiny"):
            choices = asked(url, name)
            assert furthest(policies[name], choices) < 1e-4
            assert all(furthest(policies[other], choices) > 1e-2 for other in policies if other != name)
    engine.close()


def test_answers_asked_at_once_of_several_adapters_are_those_asked_alone(
    served: tuple[Engine, str], models: Models, tmp_path: Path
) -> None:
    """60 answers of three names under way together: each has the tokens of the sampler that training uses."""
    url = served[1]
    policies = {"tiny": policy_of(models("llama"))}
    for number in (1, 2):
        folder, policies[f"v{number}"] = adapter(models("llama"), tmp_path / str(number), number)
        load(url, f"v{number}", folder)
    names = [*policies] * 5
    with ThreadPoolExecutor(15) as pool:
        found = list(pool.map(lambda at: asked(url, names[at], seed=at), range(15)))
    stop_ids = load_renderer(str(models("llama"))).stop_ids
    for at, choices in enumerate(found):
        alone = sample(policies[names[at]], [PROMPT], 4, Drawing(40, 1.0, 4, stop_ids), (at, 0))
        assert [choice["token_ids"] for choice in choices] == [row.tolist() for row in alone.answers]
        ended = [choice["finish_reason"] == "stop" for choice in choices]
        assert ended == alone.stopped.tolist()


def test_a_stop_token_is_told_with_its_log_probability(served: tuple[Engine, str], models: Models) -> None:
    """Of 64 answers some end by it: it is the last id then, without text, and usage counts it once."""
    answer = httpx.post(
        f"{served[1]}/completions", json={**ASKED, "model": "tiny", "n": 64, "max_tokens": 80}, timeout=60
    ).json()
    stop_ids = load_renderer(str(models("llama"))).stop_ids
    ended = [choice for choice in answer["choices"] if choice["finish_reason"] == "stop"]
    assert ended
    assert all(choice["token_ids"][-1] in stop_ids for choice in ended)
    assert furthest(policy_of(models("llama")), answer["choices"]) < 1e-4
    assert answer["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in answer["choices"])
    without = httpx.post(
        f"{served[1]}/completions",
        json={**ASKED, "model": "tiny", "n": 64, "max_tokens": 80, "return_token_ids": False},
        timeout=60,
    ).json()
    assert [choice["text"] for choice in without["choices"]] == [choice["text"] for choice in answer["choices"]]
    assert all("token_ids" not in choice for choice in without["choices"])
    told = [len(choice["logprobs"]["tokens"]) for choice in without["choices"]]
    assert told == [len(c["token_ids"]) - (c["finish_reason"] == "stop") for c in answer["choices"]]


def test_a_stream_tells_the_same_ids(served: tuple[Engine, str]) -> None:
    """The ids of all its pieces, in order, are those of the whole answer."""
    whole = asked(served[1], "tiny", n=1)[0]["token_ids"]
    streamed: list[int] = []
    body = {**ASKED, "model": "tiny", "n": 1, "stream": True}
    with httpx.stream("POST", f"{served[1]}/completions", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                streamed += json.loads(line[6:])["choices"][0].get("token_ids", [])
    assert streamed == whole


def test_the_one_asked_longest_ago_makes_room(served: tuple[Engine, str], models: Models, tmp_path: Path) -> None:
    """Of three adapters with room for two the second goes, because the first was asked since."""
    engine, url = served
    for number in (1, 2):
        load(url, f"v{number}", adapter(models("llama"), tmp_path / str(number), number)[0])
    asked(url, "v1")
    load(url, "v3", adapter(models("llama"), tmp_path / "3", 3)[0])
    assert engine.names == ["tiny", "v1", "v3"]
    found = {model["id"]: model.get("parent") for model in httpx.get(f"{url}/models").json()["data"]}
    assert found == {"tiny": None, "v1": "tiny", "v3": "tiny"}
    assert httpx.post(f"{url}/completions", json={**ASKED, "model": "v2"}).status_code == 404


def test_unloaded_and_loaded_again_in_place(served: tuple[Engine, str], models: Models, tmp_path: Path) -> None:
    """A name that is loaded in place has the new weights; unloaded it is unknown, and the base is what it was."""
    engine, url = served
    before = asked(url, "tiny")
    (one, _), (two, policy) = (adapter(models("llama"), tmp_path / str(number), number) for number in (1, 2))
    load(url, "v", one)
    again = load(url, "v", two)
    assert again.status_code == 400
    assert "load_inplace" in again.json()["error"]["message"]
    assert load(url, "v", two, load_inplace=True).status_code == 200
    assert furthest(policy, asked(url, "v")) < 1e-4
    assert httpx.post(f"{url}/unload_lora_adapter", json={"lora_name": "v"}).status_code == 200
    assert httpx.post(f"{url}/unload_lora_adapter", json={"lora_name": "v"}).status_code == 400
    assert engine.names == ["tiny"]
    assert [choice["token_ids"] for choice in asked(url, "tiny")] == [choice["token_ids"] for choice in before]
    assert furthest(policy_of(models("llama")), asked(url, "tiny")) < 1e-4
    load(url, "v", one)
    assert engine.names == ["tiny", "v"]


def test_an_answer_under_way_ends_when_its_adapter_goes(models: Models, tmp_path: Path) -> None:
    """It fails with a sentence, and nobody waits for ever; what is asked afterwards is refused by the engine."""
    engine = Engine({"tiny": models("llama")}, dtype="fp32", adapters=1)
    engine.load_adapter("v", str(adapter(models("llama"), tmp_path / "v", 1)[0]))
    streams = [engine.submit(Request("v", PROMPT, 100, seed=at, temperature=0.001)) for at in range(16)]
    engine.unload_adapter("v")
    for stream in streams:
        try:
            list(stream)
        except UserError as error:
            assert "the adapter was unloaded" in str(error)
        else:
            assert stream.reason in ("stop", "length")
    with pytest.raises(UserError, match="'v' is not served here"):
        engine.submit(Request("v", PROMPT, 5))
    engine.close()


def test_what_cannot_be_loaded_is_refused_and_the_server_goes_on(
    served: tuple[Engine, str], models: Models, tmp_path: Path
) -> None:
    """400 with the field; a directory that fits another model, holds none, or damaged weights, leaves no trace."""
    engine, url = served
    own, _ = adapter(models("llama"), tmp_path / "own", 1)
    other = tiny_model(tmp_path / "other", "qwen2")
    foreign, _ = adapter(other, tmp_path / "foreign", 1)
    damaged, _ = adapter(models("llama"), tmp_path / "damaged", 1)
    (damaged / "adapter_model.safetensors").write_bytes(b"\x00" * 9)
    larger, _ = adapter(models("llama"), tmp_path / "larger", 1, LoRA(rank=8))
    (larger / "adapter_config.json").write_text((own / "adapter_config.json").read_text())
    for path, said in (
        (foreign, "other, which is not served here"),
        (damaged, "damaged"),
        (larger, "does not fit the base model"),
        (models("llama"), "is no adapter directory"),
        (tmp_path / "nowhere", "nowhere"),
    ):
        answer = load(url, "v", path)
        assert answer.status_code == 400, (path, answer.text)
        assert said in answer.json()["error"]["message"]
    assert load(url, "tiny", own).status_code == 400
    assert httpx.post(f"{url}/load_lora_adapter", json={"lora_name": "v"}).json()["error"]["param"] == "lora_path"
    assert engine.names == ["tiny"]
    assert load(url, "v", own).status_code == 200


def test_a_server_takes_none_unless_told(url: str, models: Models, tmp_path: Path) -> None:
    """400 with the option that lets it."""
    answer = load(url, "v", adapter(models("llama"), tmp_path / "v", 1)[0])
    assert answer.status_code == 400
    assert "--adapters" in answer.json()["error"]["message"]


def test_adapters_are_behind_the_key(models: Models, tmp_path: Path) -> None:
    """Without the server's key an adapter is not even looked for."""
    engine = Engine({"tiny": models("llama")}, dtype="fp32", adapters=1)
    with serving(engine, Address("127.0.0.1", 0, key="secret")) as url:
        assert load(url, "v", tmp_path).status_code == 401
    engine.close()
