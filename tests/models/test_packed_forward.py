"""Norm, rotation, short attention and chosen log-probabilities: values and gradients of the plain formulas."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smolt.models.forward import logprobs
from smolt.models.forward.packed_attention import attend_block
from smolt.models.forward.packed_forward import norm, rotation

EPS = 1e-6


def draw(*shape: int, seed: int = 0) -> Tensor:
    made: Tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


def same(found: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Outputs and the gradients of a weighted sum of them agree to 1e-5."""
    results = []
    for function in (found, plain):
        output = function(*inputs)
        weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
        gradients = torch.autograd.grad((output * weights).sum(), inputs)
        results.append((output.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5


def plain_norm(states: Tensor, weight: Tensor) -> Tensor:
    return weight * states / torch.sqrt((states**2).mean(dim=-1, keepdim=True) + EPS)


def test_norm_by_hand() -> None:
    """(3, 4): the root of the mean square is sqrt(12.5); weight (1, 2) gives 3 / 3.5355 and 8 / 3.5355."""
    found = norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0)
    assert found[0].tolist() == pytest.approx([3 / math.sqrt(12.5), 8 / math.sqrt(12.5)])


@pytest.mark.parametrize("shape", [(5, 16), (3, 2, 8)])
def test_norm_and_its_gradient(shape: tuple[int, ...]) -> None:
    """The formula through autograd, for states and for single heads."""
    same(lambda x, w: norm(x, w, EPS), plain_norm, draw(*shape), draw(shape[-1], seed=1))


def test_norm_in_bf16_is_the_fp32_norm_rounded() -> None:
    """Relative error of value and gradient below 2 %: three roundings of 2^-8 and no fewer bits inside."""
    states, weight = draw(64, 32), draw(32, seed=1)
    halves = [part.detach().bfloat16().requires_grad_() for part in (states, weight)]
    for pair in zip(
        [norm(halves[0], halves[1], EPS), *torch.autograd.grad(norm(halves[0], halves[1], EPS).sum(), halves)],
        [plain_norm(states, weight), *torch.autograd.grad(plain_norm(states, weight).sum(), [states, weight])],
        strict=True,
    ):
        ours, exact = (part.detach().float() for part in pair)
        assert float((ours - exact).norm() / exact.norm()) <= 0.02


def test_rotation_by_hand_and_its_gradient() -> None:
    """A quarter turn maps the halves (1, 2 | 3, 4) to (-3, -4 | 1, 2); the gradient is that of the plain formula."""
    quarter = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    assert rotation(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), *quarter)[0, 0].tolist() == [-3, -4, 1, 2]
    angles = torch.linspace(0, 3, 12).view(6, 1, 2)

    def plain(vectors: Tensor) -> Tensor:
        first, second = vectors.chunk(2, dim=-1)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    same(lambda vectors: rotation(vectors, angles.cos(), angles.sin()), plain, draw(6, 3, 4))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_short_attention_and_its_gradient(causal: bool, key_heads: int) -> None:
    """softmax(q k' / 2 + mask) v through autograd; with grouped heads, causal or with two shared keys before."""
    keys = 5 if causal else 7
    query, key, value = draw(3, 4, 5, 4), draw(3, key_heads, keys, 4, seed=1), draw(3, key_heads, keys, 4, seed=2)
    mask = torch.full((5, keys), -1e30).triu_(1 + keys - 5)[None, None]

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = (part.repeat_interleave(4 // key_heads, dim=1) for part in (key, value))
        return torch.softmax(query @ key.transpose(-1, -2) / 2 + mask, dim=-1) @ value

    bias = None if causal else mask.expand(3, 1, 5, keys)
    same(lambda q, k, v: attend_block(q, k, v, bias, 0.5), plain, query, key, value)


def test_attention_in_bf16_is_near_the_fp32_one() -> None:
    """200 keys, more than fp32 would compute by products: outputs and gradients within 2 % of their largest entry."""
    parts = [draw(2, heads, 200, 16, seed=heads) for heads in (4, 2)]
    inputs = [parts[0], parts[1], draw(2, 2, 200, 16, seed=7)]
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        query, key, value = (part.detach().to(dtype).requires_grad_() for part in inputs)
        output = attend_block(query, key, value, None, 0.25)
        found.append([output.detach(), *torch.autograd.grad(output.float().square().sum(), (query, key, value))])
    for exact, rounded in zip(*found, strict=True):
        assert float((exact - rounded).abs().max()) <= 0.02 * float(exact.abs().max())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("part", [0, 1])
def test_chosen_logprobs_and_entropy(part: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of states and head, in chunks of 2 rows: log-probability (0) and entropy (1)."""
    monkeypatch.setattr(logprobs, "CHUNK_ENTRIES", 22)
    targets = torch.tensor([3, 0, 10, 10, 7])

    def plain(states: Tensor, head: Tensor) -> Tensor:
        distribution = torch.log_softmax(states @ head.T / temperature, dim=-1)
        entropy = -(distribution.exp() * distribution).sum(dim=-1)
        return [distribution.gather(1, targets[:, None])[:, 0], entropy][part]

    def ours(states: Tensor, head: Tensor) -> Tensor:
        return logprobs.chosen_logprobs(states, head, targets, temperature)[part]

    same(ours, plain, draw(5, 6), draw(11, 6, seed=1))
    frozen = draw(11, 6, seed=1).detach()
    same(lambda states: ours(states, frozen), lambda states: plain(states, frozen), draw(5, 6))
