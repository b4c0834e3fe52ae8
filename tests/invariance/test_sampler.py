"""The sampler draws from the distribution that training recomputes, and an answer does not depend on its company."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolt.models.forward.probing import in_float32
from smolt.models.groups import Groups, from_answers
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, draw_tokens, sample, stream_tokens
from smolt.runs.chunks import COUNTED
from tests import tiny_models
from tests.invariance.conftest import Models
from tests.tiny_models import apart

TOLERANCE = 1e-5
CONTEXTS = [list(range(3, 20)), [5], list(range(30, 35)), [50, 51, 52]]
STOPS = frozenset({0, 1, 2, 3, 4, 5, 6, 7})
DRAWING = Drawing(max_tokens=12, temperature=1.0, batch=4, stop_ids=STOPS)
COUNTER = (0, 1, 2)
SAMPLED = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma3_text", "gpt_neo", "gemma2")
LEAN = ("llama", "qwen2", "qwen3")


@pytest.fixture(params=[0, 2000], autouse=True)
def where_contexts_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once beside the slots, or copied into each."""
    monkeypatch.setattr("smolt.models.forward.kv_cache.COPIED", request.param)


def tokens(groups: Groups) -> list[list[int]]:
    return [answer.tolist() for answer in groups.answers]


def recomputed(policy: Policy, groups: Groups, temperature: float = 1.0) -> Tensor:
    with torch.no_grad():
        return policy(groups, temperature)[0]


def test_answers_under_way_are_counted(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    """Four answers of 8 tokens side by side: one of four more after every second token; none ends early."""
    policy = tiny_models.open_full(models("llama"))
    with caplog.at_level(logging.DEBUG, COUNTED):
        sample(policy, CONTEXTS, 1, Drawing(8, 1.0, 4, frozenset()), COUNTER)
    assert [record.args for record in caplog.records if record.name == COUNTED] == [(done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", SAMPLED)
def test_sampled_logprobs_are_what_training_recomputes(architecture: str, temperature: float, models: Models) -> None:
    """Within 1e-5 in fp32, at temperature 1 and 0.7, packed and padded (traps 6 and 10)."""
    policy = tiny_models.open_full(models(architecture))
    groups = sample(policy, CONTEXTS, 3, replace(DRAWING, temperature=temperature), COUNTER)
    assert apart(groups.columns["sampled"], recomputed(policy, groups, temperature)) <= TOLERANCE


@pytest.mark.parametrize("architecture", SAMPLED)
def test_the_step_is_the_one_we_say(architecture: str, models: Models) -> None:
    """Llama, Qwen2 and Qwen3 decode straight over their weights; the others through their modules, and say why."""
    trunk = tiny_models.open_full(models(architecture)).trunk
    assert trunk.lean is (architecture in LEAN)
    assert bool(trunk.why_not_lean) is (trunk.packed and not trunk.lean)


@pytest.mark.parametrize("architecture", LEAN)
@pytest.mark.parametrize("adapted", [False, True])
def test_a_step_through_the_modules_gives_the_same(architecture: str, adapted: bool, models: Models) -> None:
    """Switched to the modules by hand: equal tokens, log-probabilities within 1e-5."""
    policy = (tiny_models.open_adapted if adapted else tiny_models.open_full)(models(architecture))
    tiny_models.shake(policy, width=0.02)
    lean = sample(policy, CONTEXTS, 3, DRAWING, COUNTER)
    policy.trunk.lean = False
    modules = sample(policy, CONTEXTS, 3, DRAWING, COUNTER)
    assert tokens(lean) == tokens(modules)
    assert apart(lean.columns["sampled"], modules.columns["sampled"]) <= TOLERANCE


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("batch", [1, 5, 9])
def test_slots_and_contexts_change_hands(n: int, batch: int, models: Models) -> None:
    """7 contexts of 1 to 17 tokens, 1, 3 or 8 answers each, in 1, 5 or 9 slots: what training recomputes, to 1e-5."""
    policy = tiny_models.open_full(models("qwen3"))
    contexts = [*CONTEXTS, [60], list(range(70, 79)), [80, 81]]
    groups = sample(policy, contexts, n, replace(DRAWING, batch=batch), COUNTER)
    assert groups.owners == tuple(owner for owner in range(7) for _ in range(n))
    assert apart(groups.columns["sampled"], recomputed(policy, groups)) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_columns_are_added_as_answers_get_longer(architecture: str, models: Models) -> None:
    """9 answers of up to 60 tokens in 4 slots, 32 columns at first, 59 at last, then round again: to 1e-5."""
    policy = tiny_models.open_full(models(architecture))
    drawing = replace(DRAWING, max_tokens=60, stop_ids=frozenset({0, 1}))
    groups = sample(policy, [CONTEXTS[0], [5], [9, 8]], 3, drawing, COUNTER)
    assert int(groups.lengths.max()) == 60 and int(groups.lengths.sum()) > 4 * 60
    assert apart(groups.columns["sampled"], recomputed(policy, groups)) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gpt_neo"])
def test_answers_do_not_depend_on_how_many_are_decoded_beside_them(architecture: str, models: Models) -> None:
    """The same tokens with 1, 4 and 64 slots; log-probabilities within 1e-5."""
    policy = tiny_models.open_full(models(architecture))
    one, four, all_at_once = (sample(policy, CONTEXTS, 3, replace(DRAWING, batch=b), COUNTER) for b in (1, 4, 64))
    assert tokens(one) == tokens(four) == tokens(all_at_once)
    assert apart(one.columns["sampled"], all_at_once.columns["sampled"]) <= TOLERANCE


def test_answers_do_not_depend_on_what_else_is_asked(models: Models) -> None:
    """Question 2 asked alone under its own number gets the answers it gets among four, and so in any order."""
    policy = tiny_models.open_full(models("llama"))
    together = tokens(sample(policy, CONTEXTS, 2, DRAWING, COUNTER))
    single = tokens(sample(policy, [CONTEXTS[2]], 2, DRAWING, COUNTER, ids=[2]))
    assert single == together[4:6]
    backwards = tokens(sample(policy, CONTEXTS[::-1], 2, DRAWING, COUNTER, ids=[3, 2, 1, 0]))
    assert [backwards[6:8], backwards[4:6], backwards[2:4], backwards[:2]] == [
        together[row : row + 2] for row in (0, 2, 4, 6)
    ]


def test_more_answers_keep_the_first_ones(models: Models) -> None:
    """The first 2 of 5 answers are the 2 answers: randomness is a function of the answer's number."""
    policy = tiny_models.open_full(models("llama"))
    two, five = (tokens(sample(policy, [CONTEXTS[0]], n, DRAWING, COUNTER)) for n in (2, 5))
    assert five[:2] == two


@pytest.mark.parametrize("architecture", SAMPLED)
def test_greedy_is_what_transformers_generates(architecture: str, models: Models) -> None:
    """10 tokens, token for token, `generate(do_sample=False)` of the unmodified model without a stop token."""
    greedy = Drawing(max_tokens=10, temperature=0.0, batch=2, stop_ids=frozenset())
    found = tokens(sample(tiny_models.open_full(models(architecture)), CONTEXTS, 1, greedy, COUNTER))
    truth = tiny_models.network(architecture)
    truth.generation_config.eos_token_id = None
    for context, answer in zip(CONTEXTS, found, strict=True):
        ids = torch.tensor([context])
        expected = truth.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        assert answer == expected[0, len(context) :].tolist()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo"])
def test_an_answer_ends_at_its_first_stop_token_or_at_the_limit(architecture: str, models: Models) -> None:
    """48 answers: `stopped` exactly where a stop token ends it, none inside, the others 12 tokens long; both occur."""
    groups = sample(tiny_models.open_full(models(architecture)), CONTEXTS, 12, DRAWING, COUNTER)
    for answer, stopped in zip(tokens(groups), groups.stopped.tolist(), strict=True):
        assert STOPS.isdisjoint(answer[:-1])
        assert (answer[-1] in STOPS) is stopped
        assert stopped or len(answer) == DRAWING.max_tokens
    assert 0 < int(groups.stopped.sum()) < len(groups) == 48


def test_a_limit_of_one_token(models: Models) -> None:
    """Every answer is one token, drawn from the context's own logits."""
    policy = tiny_models.open_full(models("llama"))
    groups = sample(policy, CONTEXTS, 3, replace(DRAWING, max_tokens=1), COUNTER)
    assert groups.lengths.tolist() == [1] * 12
    assert apart(groups.columns["sampled"], recomputed(policy, groups)) <= TOLERANCE


def test_the_same_counter_draws_the_same_tokens_and_another_does_not(models: Models) -> None:
    """Randomness is a function of (seed, stage, update): equal twice, different in each of the three numbers."""
    policy = tiny_models.open_full(models("llama"))
    first = tokens(sample(policy, CONTEXTS, 3, DRAWING, COUNTER))
    torch.manual_seed(123)
    assert tokens(sample(policy, CONTEXTS, 3, DRAWING, COUNTER)) == first
    for other in ((9, 1, 2), (0, 9, 2), (0, 1, 9)):
        assert tokens(sample(policy, CONTEXTS, 3, DRAWING, other)) != first


def test_sampling_leaves_the_global_generator_alone(models: Models) -> None:
    """torch's own random state is the same before and after a rollout."""
    policy, before = tiny_models.open_full(models("llama")), torch.get_rng_state()
    sample(policy, CONTEXTS, 2, DRAWING, COUNTER)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_answers_of_one_question_differ(models: Models) -> None:
    """16 answers to one question are not copies of each other."""
    policy = tiny_models.open_full(models("llama"))
    assert len({tuple(answer) for answer in tokens(sample(policy, [CONTEXTS[0]], 16, DRAWING, COUNTER))}) > 12


def test_tokens_come_as_often_as_the_policy_says(models: Models) -> None:
    """4,000 first tokens: each frequency within 4.5 standard errors of its probability, sqrt(p (1 - p) / 4000)."""
    policy, n = tiny_models.open_full(models("llama")), 4000
    groups = sample(policy, [CONTEXTS[0]], n, replace(DRAWING, max_tokens=1, batch=n), COUNTER)
    one_each = from_answers([CONTEXTS[0]], [[[token] for token in range(tiny_models.VOCABULARY)]])
    chances = recomputed(policy, one_each)[:, 0].exp()
    counts = torch.bincount(torch.cat(groups.answers), minlength=tiny_models.VOCABULARY)
    error = (chances * (1 - chances) / n).sqrt()
    assert float(((counts / n - chances).abs() / error).max()) <= 4.5


def test_a_stream_of_tokens_is_the_sampled_answer_without_its_stop_token(models: Models) -> None:
    """`stream_tokens` yields question 0's answer 0, token by token."""
    policy = tiny_models.open_full(models("llama"))
    for seed in range(4):
        groups = sample(policy, [CONTEXTS[0]], 1, DRAWING, (seed,))
        expected = groups.answers[0].tolist()[: -1 if bool(groups.stopped[0]) else None]
        assert list(stream_tokens(policy, CONTEXTS[0], DRAWING, (seed,))) == expected


# --- drawing one token ------------------------------------------------------------------------------------------------


def test_inverse_cdf_by_hand() -> None:
    """p = (0.25, 0.25, 0.5): a uniform of 0.1, 0.25, 0.5 and 0.9 draws token 0, 1, 2 and 2; log p = ln p."""
    logits = torch.tensor([0.25, 0.25, 0.5]).log().expand(4, 3)
    drawn, logprobs = draw_tokens(logits, torch.tensor([0.1, 0.25, 0.5, 0.9]), DRAWING)
    assert drawn.tolist() == [0, 1, 2, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5])


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    """p = (0, 0.5, 0, 0.5): the edges 0 and 0.5 of the cumulative sum fall on the tokens after the empty ones."""
    logits = torch.tensor([0.0, 0.5, 0.0, 0.5]).log().expand(3, 4)
    drawn, _ = draw_tokens(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), DRAWING)
    assert drawn.tolist() == [1, 3, 3]


@pytest.mark.parametrize("entries", [256, 1000, 49_152])
def test_draws_over_a_large_vocabulary_are_the_inverse_cdf(entries: int) -> None:
    """Against the cumulative sum in fp64 over uneven chances, every third of them 0: within 1e-5 of the mass."""
    logits = 3 * torch.randn(200, entries, generator=torch.Generator().manual_seed(0))
    logits[:, ::3] = -torch.inf
    uniforms = torch.linspace(0, 1 - 2**-24, 200)
    drawn, logprobs = draw_tokens(logits, uniforms, DRAWING)
    chances = torch.softmax(logits.double(), dim=-1)
    chance = chances.gather(1, drawn[:, None])[:, 0]
    end = chances.cumsum(dim=-1).gather(1, drawn[:, None])[:, 0]
    assert bool((chance > 0).all())
    assert bool((uniforms <= end + 1e-5).all()) and bool((uniforms >= end - chance - 1e-5).all())
    assert float((logprobs - chance.log()).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [({"top_k": 1}, {0}), ({"top_k": 2}, {0, 1}), ({"top_p": 0.49}, {0}), ({"top_p": 0.51}, {0, 1})],
)
def test_limits_of_the_chat_by_hand(limits: dict[str, float], allowed: set[int]) -> None:
    """p = (0.5, 0.3, 0.2): top_k keeps the k likeliest, top_p the fewest that hold that much."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(101, 3)
    drawing = replace(DRAWING, **limits)  # type: ignore[arg-type]  # a union of the two limits' types
    drawn, _ = draw_tokens(logits, torch.linspace(0, 1 - 2**-24, 101), drawing)
    assert set(drawn.tolist()) == allowed


# --- adapters ---------------------------------------------------------------------------------------------------------


def base_bits(policy: Policy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in policy.trunk.network.named_parameters() if "lora_" not in name}


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo"])
def test_the_adapter_is_at_work_while_sampling(architecture: str, models: Models) -> None:
    """Sampled log-probabilities are the adapted policy's to 1e-5 and differ from the bare trunk's by over 0.1."""
    policy = tiny_models.open_adapted(models(architecture))
    tiny_models.shake(policy)
    groups = sample(policy, CONTEXTS, 3, DRAWING, COUNTER)
    assert apart(groups.columns["sampled"], recomputed(policy, groups)) <= TOLERANCE
    assert apart(groups.columns["sampled"], recomputed(Policy(policy.trunk, None), groups)) > 0.1


@pytest.mark.parametrize("architecture", LEAN)
def test_a_low_rank_term_in_half_precision(architecture: str, models: Models) -> None:
    """bf16, adapters on every layer, biases in Qwen2: nearer to what training recomputes than bf16's own rounding.

    The rounding is what the same forward in fp32, over the same stored weights, differs by.
    """
    policy = tiny_models.open_adapted(models(architecture), dtype="bf16")
    tiny_models.shake(policy)
    groups = sample(policy, CONTEXTS, 8, DRAWING, COUNTER)
    trained = recomputed(policy, groups)
    assert apart(groups.columns["sampled"], recomputed(Policy(policy.trunk, None), groups)) > 0.1
    policy.trunk.precision = replace(policy.trunk.precision, dtype=torch.float32)
    with in_float32(policy.trunk.network):
        exact = recomputed(policy, groups)
    assert mean_apart(groups, groups.columns["sampled"], trained) <= mean_apart(groups, exact, trained)


def mean_apart(groups: Groups, first: Tensor, second: Tensor) -> float:
    return float((first - second)[groups.mask].abs().mean())


def test_a_rollout_after_another_roles_forward_uses_its_own_adapter(models: Models) -> None:
    """The reference's forward leaves the trunk bare; the next rollout is the same as before it."""
    policy = tiny_models.open_adapted(models("llama"))
    tiny_models.shake(policy)
    first = tokens(sample(policy, CONTEXTS, 3, DRAWING, COUNTER))
    groups = from_answers([[3, 4]], [[[5, 6]]])
    recomputed(Policy(policy.trunk, None), groups)
    assert tokens(sample(policy, CONTEXTS, 3, DRAWING, COUNTER)) == first


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_rollout_leaves_every_bit_of_the_trunk(dtype: str, models: Models) -> None:
    """After 5 rollouts with a trained adapter: adapter and trunk are bit-equal (trap 28), also stored in bf16."""
    policy = tiny_models.open_adapted(models("llama"), dtype=dtype)
    tiny_models.shake(policy)
    trunk, adapter = base_bits(policy), {name: value.clone() for name, value in policy.parameters().items()}
    for update in range(5):
        sample(policy, CONTEXTS, 2, DRAWING, (0, 1, update))
    assert all(torch.equal(value, trunk[name]) for name, value in base_bits(policy).items())
    assert all(torch.equal(value, adapter[name]) for name, value in policy.parameters().items())


def test_what_trains_still_trains_after_a_rollout(models: Models) -> None:
    """Sampling runs in inference mode; a backward pass after it gives every adapter weight a gradient."""
    policy = tiny_models.open_adapted(models("llama"))
    tiny_models.shake(policy)
    groups = sample(policy, CONTEXTS, 2, DRAWING, COUNTER)
    policy(groups)[0].sum().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in policy.parameters().values())


def test_the_hubs_generation_config_does_not_leak(models: Models, tmp_path: Path) -> None:
    """Qwen2.5 ships repetition_penalty, top_k 20 and top_p 0.8 (trap 5): the answers are those of a model without."""
    network = tiny_models.network("qwen2")
    settings = network.generation_config
    settings.do_sample, settings.repetition_penalty, settings.top_k, settings.top_p = True, 5.0, 2, 0.1
    network.save_pretrained(tmp_path)
    plain, shipped = (tiny_models.open_full(folder) for folder in (models("qwen2"), tmp_path))
    assert tokens(sample(shipped, CONTEXTS, 3, DRAWING, COUNTER)) == tokens(
        sample(plain, CONTEXTS, 3, DRAWING, COUNTER)
    )


def test_a_padded_model_in_bf16(models: Models) -> None:
    """GPT-Neo: both sides take the same states and the same head in fp32, so that nothing of bf16 is left: 1e-6."""
    policy = tiny_models.open_adapted(models("gpt_neo"), dtype="bf16")
    groups = sample(policy, CONTEXTS, 3, DRAWING, COUNTER)
    assert apart(groups.columns["sampled"], recomputed(policy, groups)) <= 1e-6
