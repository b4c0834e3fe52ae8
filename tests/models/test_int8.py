"""Weights in int8: their rounding, their product, and answers that are decoded from them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear
from typer.main import get_command

from smolt.cli import app
from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward import decode_step
from smolt.models.forward.decode_step import LeanDecoder
from smolt.models.forward.kernels import Int8, Kernels, kernels
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import Groups
from smolt.models.rendering import load_renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, answer_in_int8, sample
from smolt.models.sampling.int8 import departure
from smolt.models.saving import load_policy
from tests.tiny import VOCABULARY, WINDOW, Architecture, tiny_model

FAMILIES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3")


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> Kernels:
    """The functions for a dtype."""
    found = kernels(getattr(request, "param", torch.float32))
    if found is None:
        pytest.skip("there is no C compiler here, or it cannot build them")
    return found


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def policy_of(directory: Path, architecture: Architecture = "llama", dtype: str = "fp32") -> Policy:
    return load_policy(str(tiny_model(directory, architecture)), choose_precision("cpu", dtype))


def in_int8(policy: Policy, directory: Path) -> str:
    return answer_in_int8(policy, load_renderer(directory), WINDOW, str(directory))


# --- the weight -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 90),
    st.integers(0, 2**32),
    st.floats(1e-20, 1e20),
    st.sampled_from(["fp32", "bf16"]),
)
def test_rounding_is_half_a_step_at_most(rows: int, columns: int, seed: int, size: float, dtype: str) -> None:
    """|w - q s| <= s / 2 for each number, whatever its size, with s the row's largest over 127; q from -127 to 127."""
    weight = (numbers(rows, columns, seed=seed) * size).to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    held = Int8.of(weight)
    scales = weight.double().abs().amax(dim=1) / 127
    assert torch.allclose(held.scales.double(), scales, rtol=1e-6, atol=0)
    apart = (weight.double() - held.values.double() * held.scales.double()[:, None]).abs()
    assert bool((apart <= scales[:, None] * (0.5 + 1e-4)).all())
    assert int(held.values.min()) >= -127 and int(held.values.abs().amax(dim=1).min()) == 127
    assert torch.equal(held.sums, held.values.int().sum(dim=1, dtype=torch.int32))
    assert torch.equal(held.restored(torch.float32), held.values * held.scales[:, None])


def test_a_row_of_zeros_stays_one() -> None:
    """Its scale is 0, and no number of another row is touched by it; rows beyond what bytes can sum are refused."""
    weight = torch.zeros(3, 8)
    weight[1] = torch.arange(8.0)
    held = Int8.of(weight)
    assert held.scales.tolist() == [0.0, pytest.approx(7 / 127), 0.0]
    assert torch.allclose(held.restored(torch.float32), weight, atol=7 / 254)
    with pytest.raises(NotImplementedError, match="no int8 for a product of 65,537 columns"):
        Int8.of(torch.zeros(1, 2**16 + 1))


# --- the product ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compiled", "dtype"), [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)], indirect=["compiled"]
)
@pytest.mark.parametrize("width", [1, 3, 64, 100, 576, 1536])
def test_the_product_is_that_of_what_it_stands_for(compiled: Kernels, dtype: torch.dtype, width: int) -> None:
    """Within 1e-5 of the largest, in fp32 sums, for 200 rows of states of all sizes; rounded to the states' dtype."""
    states = (numbers(200, width, seed=1) * 10 ** numbers(200, 1, seed=2)).to(dtype)
    held, bias = Int8.of(numbers(33, width)), numbers(33, seed=3).to(dtype)
    truth = linear(states.double(), held.values.double() * held.scales.double()[:, None], bias.double())
    exact = compiled.product_of_bytes(states, held, bias, exact=True)
    assert exact.dtype == torch.float32
    size = truth.abs().amax(dim=1, keepdim=True)
    assert float(((exact.double() - truth).abs() / size).max()) <= 1e-5
    rounded = compiled.product_of_bytes(states, held, bias)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, exact.to(dtype))


def test_the_widest_sums_do_not_run_over(compiled: Kernels) -> None:
    """The largest states times the largest weights, 2^16 of them, of either sign."""
    held = Int8.of(torch.ones(2, 2**16) * torch.tensor([[1.0], [-1.0]]))
    found = compiled.product_of_bytes(torch.ones(2, 2**16) * torch.tensor([[3.0], [-3.0]]), held, None)
    assert torch.allclose(found, 3.0 * 2**16 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), rtol=1e-6)


def test_what_is_no_number_stays_none(compiled: Kernels) -> None:
    """A row that holds one, or an infinity, gives none; a row of zeros gives the bias; their neighbour is untouched."""
    states, held, bias = numbers(4, 16), Int8.of(numbers(5, 16)), numbers(5, seed=3)
    own = compiled.product_of_bytes(states[3:], held, bias)
    states[0, 4], states[1, 7], states[2] = float("nan"), float("inf"), 0.0
    found = compiled.product_of_bytes(states, held, bias)
    assert bool(found[:2].isnan().all())
    assert torch.equal(found[2], bias)
    assert torch.equal(found[3:], own)


# --- answers ----------------------------------------------------------------------------------------------------------


def greedy(policy: Policy, beside: int) -> list[list[int]]:
    """Answers to six contexts, so many side by side."""
    contexts = [list(range(5, 5 + length)) for length in (1, 9, 30, 17, 4, 40)]
    found = sample(policy, contexts, 1, Drawing(40, 0.0, beside, frozenset({5})), (1, 2, 3))
    return [answer.tolist() for answer in found.answers]


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.usefixtures("compiled")
def test_answers_are_those_of_the_rounded_weights(architecture: Architecture, tmp_path: Path) -> None:
    """The tokens of torch's operations over what the int8 stands for, one at a time, two, and six side by side."""
    policy = policy_of(tmp_path, architecture)
    plain = greedy(policy, 1)
    in_int8(policy, tmp_path)
    assert policy.decoder is not None
    by_torch = copy.copy(policy.decoder)
    by_torch.kernels = None
    expected = greedy(Policy(policy.trunk, policy.adapter, by_torch), 1)
    assert [greedy(policy, beside) for beside in (1, 2, 6)] == [expected] * 3
    assert [len(answer) for answer in plain] == [len(answer) for answer in greedy(policy_of(tmp_path, architecture), 1)]


@pytest.mark.usefixtures("compiled")
def test_the_networks_own_weights_are_left_alone(tmp_path: Path) -> None:
    """Log-probabilities, prompts and what a server shares between lanes are computed with them as before."""
    policy = policy_of(tmp_path)
    before = {name: held.clone() for name, held in policy.trunk.network.state_dict().items()}
    in_int8(policy, tmp_path)
    assert policy.decoder is not None
    policy.decoder.share(policy.trunk.network)
    assert all(torch.equal(before[name], held) for name, held in policy.trunk.network.state_dict().items())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_adapter_is_merged_before_it_is_rounded(dtype: str, tmp_path: Path) -> None:
    """q + B A in fp32, then to int8; in bf16 too, where a step otherwise keeps the term apart."""
    precision = choose_precision("cpu", dtype)
    if kernels(precision.dtype) is None:
        pytest.skip("there is no C compiler here")
    policy = policy_of(tmp_path, dtype=dtype)
    policy.trunk.add_adapter("own", LoRA(rank=4, alpha=8.0, targets=("q_proj",)))
    module: Any = policy.trunk.network.base_model.layers[1].self_attn.q_proj
    with torch.no_grad():
        module.lora_B["own"].weight.copy_(numbers(*module.lora_B["own"].weight.shape))
    merged = Policy(policy.trunk, "own")
    in_int8(merged, tmp_path)
    assert merged.decoder is not None and merged.decoder.layers[1].queries_keys_values.int8 is not None
    down, up = module.lora_A["own"].weight.float(), module.lora_B["own"].weight.float()
    expected = Int8.of(module.base_layer.weight.float() + 2.0 * up @ down)
    held = merged.decoder.layers[1].queries_keys_values.int8
    assert torch.equal(held.values[: len(expected.values)], expected.values)
    assert torch.equal(held.scales[: len(expected.values)], expected.scales)


@pytest.mark.usefixtures("compiled")
def test_the_departure_is_measured(tmp_path: Path) -> None:
    """Nothing where the weights are the same; where they are rounded, what whole forwards with rounded weights give."""
    policy = policy_of(tmp_path)
    text = torch.randint(5, VOCABULARY, (4 * 30,), generator=torch.Generator().manual_seed(0)).tolist()
    same = departure(policy, LeanDecoder(policy.trunk.network, None, torch.float32, WINDOW), text)
    assert (same.tokens, same.same) == (4 * 28, 1.0)
    assert same.largest < 1e-4
    found = departure(policy, LeanDecoder(policy.trunk.network, None, torch.float32, WINDOW, int8=True), text)
    assert 1e-4 < found.mean < found.largest
    rows = torch.tensor(text).view(4, 30)
    with torch.no_grad():
        own = _next(policy, rows)
        for module in policy.trunk.network.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(Int8.of(module.weight).restored(torch.float32), requires_grad=False)
        apart = (_next(policy, rows) - own).abs()
    # A context's first token is read with the weights as they are, which the forward above does not know.
    assert found.mean == pytest.approx(float(apart.mean()), rel=0.1)


def _next(policy: Policy, rows: Tensor) -> Tensor:
    """Log-probabilities of each row's third token on, by one forward."""
    return policy(Groups(tuple(rows[:, :2]), tuple(rows[:, 2:]), tuple(range(4)), torch.zeros(4, dtype=torch.bool)))[0]


@pytest.mark.usefixtures("compiled")
def test_it_is_said_in_a_sentence(tmp_path: Path) -> None:
    """What it takes, and how far log-probabilities depart."""
    policy = policy_of(tmp_path)
    said = in_int8(policy, tmp_path)
    assert policy.decoder is not None
    held = [policy.decoder.head, *(part for layer in policy.decoder.layers for part in layer.products)]
    rows = sum(len(affine.weight) for affine in held)
    assert policy.decoder.int8_bytes == sum(affine.weight.numel() for affine in held) + 8 * rows
    begin = f"{tmp_path}: weights in int8, {policy.decoder.int8_bytes / 1e6:,.0f} MB more: over 248 tokens of a text"
    assert said.startswith(begin)
    assert "differ from those of fp32 by 0." in said and said.endswith("%")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "gpt_neo", "gemma3_text"])
def test_other_families_are_refused_by_name(architecture: Architecture, tmp_path: Path) -> None:
    """With the families that it is there for."""
    policy = policy_of(tmp_path, architecture)
    said = (
        f"--weights int8: {tmp_path}: no lean step for {architecture}; it is there for llama, mistral, qwen2, qwen3. "
    )
    with pytest.raises(UserError) as error:
        in_int8(policy, tmp_path)
    assert str(error.value) == f"{said}Leave it out"
    assert policy.decoder is None


def test_without_a_compiler_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence that says what is missing; the model answers as before."""
    monkeypatch.setattr(decode_step, "kernels", lambda dtype: None)
    policy = policy_of(tmp_path)
    with pytest.raises(UserError) as error:
        in_int8(policy, tmp_path)
    missing = "its products in int8 are compiled, and here they cannot be: no C compiler (CC, else cc), "
    missing += "SMOLT_COMPILE=0, or weights of several precisions; leave it out"
    assert str(error.value) == f"--weights int8: {tmp_path}: {missing}"
    assert policy.decoder is None and greedy(policy, 1)


def test_only_chat_and_serve_have_it() -> None:
    """Nothing that trains, measures or samples for a reward."""
    commands: dict[str, Any] = vars(get_command(app))["commands"]
    having = {name for name, command in commands.items() if any(one.name == "weights" for one in command.params)}
    assert having == {"chat", "serve"}
    helps = [one.help for name in having for one in commands[name].params if one.name == "weights"]
    assert len(set(helps)) == 1 and helps[0].startswith("int8: ")
