"""The compiled parts of a decoding step against torch's operations, and what stands in where they cannot be built."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from smolt.models.forward import decode_step
from smolt.models.forward.kernels import FLAGS, Kernels, kernels
from smolt.models.forward.precision import choose_precision
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from tests.tiny import Architecture, tiny_model

DTYPES = [torch.float32, torch.bfloat16]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}
"""Of the largest number: rounding in another order; one step of bf16."""


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> Kernels:
    """The functions for a dtype."""
    found = kernels(request.param)
    if found is None:
        pytest.skip("there is no C compiler here, or it cannot build them")
    return found


@pytest.fixture
def compiled_float() -> Kernels:
    """Those for fp32."""
    found = kernels(torch.float32)
    if found is None:
        pytest.skip("there is no C compiler here")
    return found


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    difference = float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
    assert difference <= CLOSE[dtype]


both = pytest.mark.parametrize(("compiled", "dtype"), [(dtype, dtype) for dtype in DTYPES], indirect=["compiled"])


@both
@pytest.mark.parametrize(("rows", "width"), [(1, 7), (3, 48), (40, 576)])
def test_norm_adds_in_place_and_norms_the_sum(compiled: Kernels, dtype: torch.dtype, rows: int, width: int) -> None:
    """What is added may lie in a wider tensor, as a product with a low-rank term's rows below it leaves it."""
    states, wide, weight = (numbers(*shape, dtype=dtype) for shape in ((rows, width), (rows, width + 5), (width,)))
    total = (states.float() + wide[:, :width].float()).to(dtype)
    normed = compiled.norm(states, wide[:, :width], weight, 1e-5)
    assert torch.equal(states, total)
    assert_near(normed, rms_norm(total.float(), (width,), weight.float(), 1e-5), dtype)
    assert_near(compiled.norm(states, None, weight, 1e-5), normed, dtype)
    assert torch.equal(states, total)


@both
@pytest.mark.parametrize(("rows", "width"), [(1, 5), (40, 1536)])
def test_gate_is_silu_times_the_other_half(compiled: Kernels, dtype: torch.dtype, rows: int, width: int) -> None:
    """From -100 to 100 too, where e^x leaves the range of fp32."""
    gates = numbers(rows, 2 * width + 3, dtype=dtype)[:, : 2 * width] * 30
    gates[0, :4] = torch.tensor([-100.0, 100.0, 0.0, -1.0])
    first, second = gates.float().chunk(2, dim=-1)
    assert_near(compiled.gate(gates), silu(first) * second, dtype)


@both
@pytest.mark.parametrize("width", [3, 64, 100, 576])
def test_product_of_few_rows(compiled: Kernels, dtype: torch.dtype, width: int) -> None:
    """Three weights side by side, one with a bias, and the same sums in fp32."""
    states = numbers(2, width, dtype=dtype)
    weights = [numbers(out, width, dtype=dtype, seed=out) for out in (6, 1, 33)]
    bias = numbers(1, dtype=dtype)
    found = compiled.product(states, ((weights[0], None), (weights[1], bias), (weights[2], None)))
    expected = [linear(states.float(), weight.float()) for weight in weights]
    expected[1] += bias.float()
    assert_near(found, torch.cat(expected, dim=1), dtype)
    exact = compiled.product(states, ((weights[2], None),), exact=True)
    assert exact.dtype == torch.float32
    assert_near(exact, expected[2], torch.float32)


def test_short_memory_is_an_error(compiled_float: Kernels) -> None:
    """Sums of 2^54 numbers, scores of 2^55: more than a processor can address."""
    with pytest.raises(MemoryError):
        compiled_float.product(torch.zeros(1, 1).expand(2**40, 2**14), ((torch.zeros(0, 2**14), None),))
    one, line = torch.zeros(1, 6), torch.zeros(1, 1, 2, 1)
    with pytest.raises(MemoryError):
        compiled_float.attend(
            *(one, (one, one), (None, None, 0.0), (line, line.mT, 0)),
            *((line, line.mT, 2**55), torch.zeros(1, dtype=torch.int64), one, 1.0),
        )


@pytest.fixture(params=[0, 2000])
def where_contexts_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beside the slots, or copied into each."""
    monkeypatch.setattr("smolt.models.forward.kv_cache.COPIED", request.param)
    yield


def greedy_states(policy: Policy, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> Tensor:
    """The final states of every step of greedy answers, three to each of four contexts of unequal length."""
    found: list[Tensor] = []
    whole = decode_step.LeanDecoder.step

    def step(self: decode_step.LeanDecoder, *given: Any) -> Tensor:
        assert (self.kernels is not None) == compiled
        states = whole(self, *given)
        found.append(states.clone())
        return states

    with monkeypatch.context() as patch:
        patch.setattr(decode_step.LeanDecoder, "step", step)
        if not compiled:
            patch.setattr(decode_step, "kernels", lambda dtype: None)
        contexts = [list(range(5, 5 + length)) for length in (1, 9, 30, 17)]
        sample(policy, contexts, 3, Drawing(40, 0.0, 8, frozenset({5})), (1, 2, 3))
    return torch.cat(found)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.usefixtures("where_contexts_stand")
def test_answers_are_those_of_torchs_operations(
    architecture: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens, and states within 1e-5, while slots change hands and the cache grows."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    policy = load_policy(str(tiny_model(tmp_path / "model", architecture)), choose_precision("cpu", "fp32"))
    own, torchs = (greedy_states(policy, monkeypatch, compiled) for compiled in (True, False))
    assert own.shape == torchs.shape
    assert_near(own, torchs, torch.float32)


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing has been built yet, and what is goes to a directory of its own, quickly."""
    monkeypatch.setattr(f"{Kernels.__module__}.FLAGS", ("-O0", *FLAGS[1:]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels.cache_clear()
    yield tmp_path
    kernels.cache_clear()


def test_it_is_built_once(unbuilt: Path) -> None:
    """One library, in the user's cache, which the next process finds."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    (library,) = (unbuilt / "cache" / "smolt" / "kernels").iterdir()
    made = library.stat().st_mtime_ns
    kernels.cache_clear()
    assert kernels(torch.float32) is not None
    assert library.stat().st_mtime_ns == made


@pytest.mark.parametrize("left", [0, 9000])
def test_part_of_a_library_is_built_anew(unbuilt: Path, left: int) -> None:
    """Loading one of which the header alone is there would end the process."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    (library,) = (unbuilt / "cache" / "smolt" / "kernels").iterdir()
    whole = library.read_bytes()
    library.unlink()  # this process has it in memory
    library.write_bytes(whole[:left])
    kernels.cache_clear()
    assert kernels(torch.float32) is not None
    assert len(library.read_bytes()) == len(whole)


@pytest.mark.parametrize("cache", ["a file", "no home"])
def test_without_a_cache_it_serves_this_process(unbuilt: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    """Nothing is written where nothing can be, nor into a directory called `~`."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    if cache == "a file":
        (unbuilt / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(unbuilt / "file"))
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(unbuilt)
    kernels.cache_clear()
    assert kernels(torch.float32) is not None
    assert not (unbuilt / "~").exists()


def test_a_compiler_may_have_arguments(unbuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `ccache gcc`."""
    if kernels(torch.float32) is None:
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("CC", f"env {os.environ.get('CC') or 'cc'}")
    kernels.cache_clear()
    assert kernels(torch.float32) is not None


def test_a_compiler_that_fails_is_one_sentence(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = unbuilt / "broken-cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such flag" >&2\necho more >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with caplog.at_level(logging.INFO, "smolt"):
        assert kernels(torch.float32) is None
        assert kernels(torch.float32) is None
    said = "the decoding step is not compiled (no such flag): torch's operations take its place"
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(("name", "value"), [("CC", "no-such-compiler"), ("SMOLT_COMPILE", "0")])
def test_without_a_compiler_nothing_is_said(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert kernels(torch.float32) is None
    assert not caplog.records
    assert not (unbuilt / "cache").exists()
