"""What a server asks of the sampler beyond a rollout: contexts in pieces, and a cache that grows and shrinks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from smolt import randomness
from smolt.models.forward import decode_step
from smolt.models.forward.kv_cache import Cache
from smolt.models.forward.precision import choose_precision
from smolt.models.sampling import Book, Drawing, Slots, sample
from smolt.models.sampling.slots import prefill, prefill_further
from smolt.models.saving import load_policy
from tests.serving.conftest import Models, policy_of
from tests.tiny import WINDOW, Architecture

TOLERANCE = 1e-5
DRAWING = Drawing(max_tokens=90, temperature=1.0, batch=8, stop_ids=frozenset({1}))


@pytest.fixture(params=[0, 2000], autouse=True)
def where_contexts_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once beside the slots, or copied into each."""
    monkeypatch.setattr("smolt.models.forward.kv_cache.COPIED", request.param)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("piece", [1, 7, 33])
def test_a_context_in_pieces_is_the_context(architecture: Architecture, piece: int, models: Models) -> None:
    """70 tokens, so many at a time: keys, values and logits of one forward, to 1e-5 of the largest."""
    policy, context = policy_of(models(architecture)), torch.arange(5, 75)
    with torch.inference_mode():
        (whole,), logits = prefill(policy, [context])
        held: list[tuple[torch.Tensor, torch.Tensor]] = []
        for start in range(0, 70, piece):
            held, after = prefill_further(policy, context[start : start + piece], held)
    for found, expected in [*zip(held, whole, strict=True), ((after,), (logits,))]:
        for ours, theirs in zip(found, expected, strict=True):
            assert float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_answers_over_a_cache_that_is_made_anew_all_the_time(architecture: Architecture, models: Models) -> None:
    """12 answers that begin at different steps, contexts of 1 to 60 tokens: `sample`'s, and the cache did change."""
    directory = models(architecture)
    policy = policy_of(directory)
    contexts = [list(range(5, 6 + 5 * number)) for number in range(12)]
    limits = [90, 3, 40, 90, 7, 20, 90, 1, 60, 15, 30, 90]
    drawings = [replace(DRAWING, max_tokens=limit) for limit in limits]
    expected = [
        sample(policy, [context], 1, drawing, (number,)).answers[0].tolist()
        for number, (context, drawing) in enumerate(zip(contexts, drawings, strict=True))
    ]
    book, left = Book(12, 90, DRAWING.stop_ids), dict.fromkeys(range(12), 1)
    slots, bounds = Slots(policy, book, 12, left, WINDOW), set()
    with torch.inference_mode():
        for number, context in enumerate(contexts):
            book.begin(number, randomness.key(number, 0, 0), number, drawings[number])
            ((held, after),) = slots.read_whole([torch.tensor(context)])
            slots.stand(number, held, after)
            slots.admit(np.array([number]))
            for _ in range(5):
                slots.step()
                bounds.add(tuple(slots.cache.bounds.items()) if slots.cache else ())
        while len(slots.rows):
            slots.step()
            bounds.add(tuple(slots.cache.bounds.items()) if slots.cache else ())
    assert [book.tokens[row, : book.lengths[row]].tolist() for row in range(12)] == expected
    assert len(bounds) >= 6
    assert slots.standing == [] and not any(left.values())


def test_refitting_keeps_what_is_held() -> None:
    """Keys of 2 contexts and of 3 answers of unlike ages stand where attention looks for them, larger and smaller."""
    draw = torch.Generator().manual_seed(0)
    like = [(torch.randn(6, 2, 4, generator=draw), torch.randn(6, 2, 4, generator=draw))]
    cache, fixed = Cache(like, 2, 4, 6, 3), Cache(like, 2, 4, 6, 40)
    for one in (cache, fixed):
        one.add_context(like[0:1])
        one.add_context([(like[0][0][:2], like[0][1][:2])])
    sizes = [(2, 4, 6, 5), (3, 5, 9, 12), (2, 3, 6, 10), (8, 9, 40, 64)]
    for step in range(12):
        if step % 4 == 0:
            for one in (cache, fixed):
                one.add_slots([step // 4 % 2])
        if step % 3 == 0:
            cache.refit(*sizes[step // 3])
        query, key, value = (torch.randn(len(cache.places), 2, 4, generator=draw) for _ in range(3))
        outputs = []
        for one in (cache, fixed):
            if one.oldest >= one.steps:
                one.refit(**{**one.bounds, "steps": one.oldest + 3})
            one.begin_step()
            outputs.append(one.attend(0, query, key, value, None, None))
            one.end_step()
        assert float((outputs[0] - outputs[1]).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_without_an_order_of_its_own_a_server_holds_each_weight_once(
    architecture: Architecture, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Query, key and value lie in one tensor, which the decoding step uses; the forward's numbers stay bit for bit."""
    monkeypatch.setattr(decode_step, "_has_order", lambda dtype: False)  # as on a card
    policy = load_policy(str(models(architecture)), choose_precision("cpu", "fp32"))
    context = torch.arange(5, 40)
    with torch.inference_mode():
        before = prefill(policy, [context])[1]
    decoder = policy.trunk.lean_decoder(None, WINDOW)
    assert decoder is not None
    decoder.share(policy.trunk.network)
    layer: Any = policy.trunk.network.base_model.layers[0]
    places = {part.weight.untyped_storage().data_ptr() for part in (layer.self_attn.q_proj, layer.self_attn.v_proj)}
    assert places == {decoder.layers[0].queries_keys_values.weight.untyped_storage().data_ptr()}
    assert layer.mlp.up_proj.weight.untyped_storage().data_ptr() == (
        decoder.layers[0].gate_up.weight.untyped_storage().data_ptr()
    )
    with torch.inference_mode():
        assert torch.equal(prefill(policy, [context])[1], before)
