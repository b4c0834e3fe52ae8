"""When layers are recomputed: by hand, the same before a model is loaded as after, and the same in a continued run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smolt.config import Budget
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.forward.token_budget import Room
from smolt.models.groups import Groups, PaddedTokens, from_answers, largest_atom
from smolt.models.locating import locate
from smolt.models.roles import open_policy
from smolt.training.memory.shapes import empty_network, room_of, way_of
from tests import tiny_models
from tests.reliability.scenes import SCENES, open_scene, write_inputs
from tests.reliability.traces import traces

ROOM = Room(layers=5, width=10, mlp=20, heads=2, number=4, packed=True)
INSIDE = 24 * 10 + 6 * 20  # numbers a token and layer
GIB = 2**30


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("checkpointing"))


def pair() -> Groups:
    """A context of 10 tokens with answers of 5 and 7, which belong together."""
    return from_answers([[1] * 10], [[[1] * 5, [1] * 7]]).with_columns(pair=torch.tensor([0, 0]))


def test_tokens_by_hand() -> None:
    """5 layers keep 360 numbers a token each; recomputed 10 each, and 360 once: 1800 against 410 numbers of 4 bytes."""
    memory = 72_000_000 / GIB
    assert ROOM.tokens(memory) == 72_000_000 // (5 * INSIDE * 4)
    assert ROOM.tokens(memory, recomputed=True) == 72_000_000 // ((5 * 10 + INSIDE) * 4)
    assert ROOM.tokens(1e-6) == 256
    assert ROOM.tokens(1e-6, least=0) == 0


def test_padded_tokens_by_hand() -> None:
    """A layer's attention keeps 3 x 2 numbers an entry; recomputed those of one layer stand against the 410."""
    padded = Room(5, 10, 20, 2, 4, packed=False)
    limits = [padded.tokens(1.0), padded.tokens(1.0, recomputed=True)]
    assert [limit.square for limit in limits if isinstance(limit, PaddedTokens)] == [6 / 360, 6 / 410]


def test_the_largest_rows_by_hand() -> None:
    """A pair travels with its context once; padded, as two rows of 17 that attend to 17; answers travel alone."""
    assert largest_atom(pair(), 100) == 22
    padded = PaddedTokens(100)
    padded.square = 0.5
    assert largest_atom(pair(), padded) == 2 * 17 * (1 + 0.5 * 17)
    apart = from_answers([[1] * 10, [1] * 3], [[[1] * 5, [1] * 7], [[1] * 12]])
    assert largest_atom(apart, 100) == 17
    assert ROOM.largest([apart, pair()]) == 22
    assert ROOM.largest([]) == 0


def budget(memory: float, checkpointing: str = "auto") -> Budget:
    return Budget.model_validate({"memory": memory, "checkpointing": checkpointing})


def test_auto_acts_where_the_largest_rows_do_not_fit() -> None:
    """22 tokens of 7200 bytes fit into 158,400 bytes and not into one less; the least of 256 tokens has no say."""
    fits, short = 158_400 / GIB, 158_399 / GIB
    assert ROOM.reason(budget(fits), 22) == ""
    assert ROOM.reason(budget(short), 22).endswith("do not fit into budget.memory (0.000147521 GiB) otherwise")
    assert ROOM.reason(budget(short, "never"), 22) == ""
    assert "budget.checkpointing: always" in ROOM.reason(budget(fits, "always"), 0)


def test_a_network_without_layers() -> None:
    """auto leaves it as it is, always is refused."""
    lost = Room(5, 10, 20, 2, 4, packed=True, found=False)
    assert lost.reason(budget(1e-9), 22) == ""
    with pytest.raises(UserError, match=r"budget\.checkpointing: the layers of this network are not found"):
        lost.reason(budget(1.0, "always"), 22)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neo"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_loaded_network_decides_as_one_without_weights(architecture: str, dtype: str, tmp_path: Path) -> None:
    """At a memory that the pair just exceeds, and one that it just does not; the tokens follow."""
    located = locate(str(tiny_models.save(architecture, tmp_path)))
    precision = choose_precision("cpu", dtype)
    trunk = open_policy(located, precision, None, 0).trunk
    room = room_of(empty_network(located), way_of(precision, None))
    assert trunk.room == room
    exact = room.largest([pair()]) * 2 * (24 * 32 + 6 * room.mlp) * room.number / GIB
    for memory, recomputed in ((exact * 1.05, False), (exact * 0.95, True)):
        assert trunk.settle(budget(memory), [pair()]) == room.tokens(memory, recomputed)
        assert bool(trunk.recomputed) is recomputed
        assert trunk.micro_tokens(1.0) == room.tokens(1.0, recomputed)


SMALL = {"budget__memory": 1e-5}


@pytest.mark.parametrize("scene", SCENES)
def test_a_run_that_recomputes_says_so(scene: str, inputs: Path, tmp_path: Path) -> None:
    """In a remark, the manifest and the result; and learns what one learns that keeps everything, in the same cut."""
    runs: dict[str, dict[str, Any]] = {}
    for choice in ("auto", "never"):
        training = open_scene(scene, inputs, tmp_path / choice, budget__checkpointing=choice, **SMALL)
        manifest = json.loads((tmp_path / choice / "manifest.json").read_text())
        assert manifest["checkpointing"] is (choice == "auto")
        assert any("each layer is computed again" in remark for remark in training.remarks) is (choice == "auto")
        facts = training.finish().metrics["facts"]
        assert facts.pop("checkpointing") is (choice == "auto")
        assert bool(facts.pop("checkpointing_note", "")) is (choice == "auto")
        runs[choice] = traces(tmp_path / choice)
    same = [
        {name: value for name, value in run["model"].items() if name.endswith(".safetensors")} for run in runs.values()
    ]
    assert same[0] == same[1]
    assert runs["auto"]["metrics.jsonl"] == runs["never"]["metrics.jsonl"]


@pytest.mark.parametrize("scene", ["sft-lora", "ppo-lora", "ppo-full"])
def test_a_continued_run_recomputes_too(scene: str, inputs: Path, tmp_path: Path) -> None:
    """Left after each update and opened anew: the bytes of a run that was not."""
    open_scene(scene, inputs, tmp_path / "whole", **SMALL).finish()
    for _ in range(3):
        training = open_scene(scene, inputs, tmp_path / "left", **SMALL)
        next(training)
        training.close()
    open_scene(scene, inputs, tmp_path / "left", **SMALL).finish()
    assert traces(tmp_path / "left") == traces(tmp_path / "whole")
