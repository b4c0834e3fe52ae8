"""The checks before the first update: each passes what is right and raises, naming the cause, for what is not."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smolt.config import LoRA, make_recipe
from smolt.data import Question
from smolt.errors import SelfCheckError
from smolt.models.forward.kernels import kernels
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups, from_answers
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.training.checks import answer_tokens_only, cautions, forward_facts, hardly_moves, same_policy, stop_reachable
from tests import tiny_models
from tests.tokenizers_on_the_spot import smollm

ASKED = Question(())
GROUPS = from_answers([[3, 4, 5]], [[[8, 9, 0]]])


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(smollm())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save("llama", tmp_path_factory.mktemp("llama"))


def record(renderer: Renderer, ids: list[int]) -> Groups:
    return from_answers([renderer.context(())], [[ids]])


def test_an_answer_that_ends_with_its_stop_token_passes(renderer: Renderer) -> None:
    """One, and also a one-token answer: the stop token alone (pad == stop here)."""
    answer_tokens_only([record(renderer, renderer.answer("Fine.")), record(renderer, [renderer.stop_id])], renderer)


def test_an_answer_without_its_stop_token_is_found(renderer: Renderer) -> None:
    """Trap 2: the second record lacks it, and is named."""
    rows = [record(renderer, renderer.answer("Fine.")), record(renderer, renderer.answer("Fine.", stop=False))]
    with pytest.raises(SelfCheckError, match="record 2: the answer must end with the stop token"):
        answer_tokens_only(rows, renderer)


def test_a_second_stop_token_is_found(renderer: Renderer) -> None:
    with pytest.raises(SelfCheckError, match="hold no other"):
        answer_tokens_only([record(renderer, [renderer.stop_id, *renderer.answer("Fine.")])], renderer)


def test_a_policy_is_its_own_reference_until_it_moves(llama: Path) -> None:
    """Passes at step 0; an adapter moved by noise of 0.1 is found."""
    policy = tiny_models.open_adapted(llama)
    reference = policy.as_reference()
    same_policy(policy, reference, GROUPS)
    tiny_models.shake(policy)
    with pytest.raises(SelfCheckError, match="at step 0 is not 0"):
        same_policy(policy, reference, GROUPS)


def test_a_policy_of_nan_is_not_its_reference(llama: Path) -> None:
    """NaN is not <= the tolerance: the check does not pass by comparison with it."""
    policy = tiny_models.open_adapted(llama)
    with torch.no_grad():
        next(value for name, value in policy.parameters().items() if "down_proj" in name).fill_(math.nan)
    with pytest.raises(SelfCheckError, match="differ by nan"):
        same_policy(policy, Policy(policy.trunk, None), GROUPS)


def test_facts_of_the_forward(llama: Path) -> None:
    """Packed Llama in fp32 on the CPU with its number of weights, and no note, for nothing is unusual."""
    trunk = tiny_models.open_full(llama).trunk
    weights = sum(parameter.numel() for parameter in tiny_models.network("llama").parameters())
    decoding = "lean" if kernels(torch.float32) is None else "compiled"
    expected = {"forward": "packed", "decoding": decoding, "checkpointing": False, "device": "cpu", "dtype": "float32"}
    assert forward_facts(trunk) == expected | {"parameters": weights}
    trunk.precision = choose_precision("cpu", "bf16")
    assert forward_facts(trunk)["decoding"] == "lean"  # weights in fp32 under autocast: two precisions in one step
    trunk.precision = choose_precision("cpu", "fp32")
    trunk.add_adapter("policy", LoRA(rank=2))
    assert forward_facts(trunk)["parameters"] == weights


def test_an_unusual_forward_is_noted(tmp_path: Path) -> None:
    """GPT-Neo: padded, with the reason."""
    facts = forward_facts(tiny_models.open_full(tiny_models.save("gpt_neo", tmp_path)).trunk)
    assert facts["forward"] == "padded"
    assert facts["forward_note"].startswith("padded forward: ")


def test_a_stop_token_that_can_be_sampled_passes(llama: Path, renderer: Renderer) -> None:
    stop_reachable(tiny_models.open_full(llama), renderer, 2, ASKED)


def test_no_room_for_the_stop_token(llama: Path, renderer: Renderer) -> None:
    with pytest.raises(SelfCheckError, match=r"sampling\.max_tokens is 1: no room"):
        stop_reachable(tiny_models.open_full(llama), renderer, 1, ASKED)


def test_a_stop_token_without_a_row(llama: Path, renderer: Renderer) -> None:
    """A head cut to the rows below the stop token."""
    policy = tiny_models.open_full(llama)
    head = policy.trunk.network.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight[: renderer.stop_id])
    with pytest.raises(SelfCheckError, match="has no row in the head"):
        stop_reachable(policy, renderer, 2, ASKED)


def test_a_stop_token_of_probability_zero(llama: Path, renderer: Renderer) -> None:
    """Its row is not finite."""
    policy = tiny_models.open_full(llama)
    with torch.no_grad():
        policy.trunk.network.get_output_embeddings().weight[renderer.stop_id] = math.inf
    with pytest.raises(SelfCheckError, match="can never be sampled"):
        stop_reachable(policy, renderer, 2, ASKED)


def test_what_was_left_out_is_a_caution_from_a_tenth_on() -> None:
    """162 of 200 too long: 81 %; 20 of 200: not above a tenth; a training that took a step has no other caution."""
    recipe, rows = SimpleNamespace(stage="dpo"), [{"optimizer_steps": 1}]
    assert cautions(recipe, {"records": 38, "too_long": 162, "identical": 0}, rows) == [
        "162 of 200 records (81%) were left out, for they exceed the window"
    ]
    assert cautions(recipe, {"records": 160, "too_long": 20, "identical": 20}, rows) == []
    assert cautions(recipe, {"records": 50, "identical": 50}, rows) == [
        "50 of 100 records (50%) were left out, for their two answers are the same"
    ]


def test_a_budget_that_cannot_move_an_adapter_is_told() -> None:
    """30 steps at 1e-5 come to 3e-4; 50 come to 5e-4, which is enough; of all weights nothing is said."""

    def said(stage: str, updates: int, **fields: Any) -> list[str]:
        known: dict[str, Any] = {"model": "m", "data": "d.jsonl", "lora": {"rank": 8}, "optim": {"lr": 1e-5}}
        return hardly_moves(make_recipe(stage, **{**known, "budget": {"updates": updates}, **fields}))

    (found,) = said("dpo", 30)
    assert found.startswith("30 optimizer steps at optim.lr 1e-05 move a weight of the adapter by 0.0003 at most: ")
    assert said("dpo", 50) == said("dpo", 3, lora=None) == said("reward", 30) == []
    ppo = {"reward": {"name": "length", "options": {"target": 8}}, "critic": {"warmup": 2}}
    ppo["inner"] = {"epochs": 2, "minibatches": 5}
    assert said("ppo", 7, **ppo) == []
    assert said("ppo", 6, **ppo)[0].startswith("40 optimizer steps")
