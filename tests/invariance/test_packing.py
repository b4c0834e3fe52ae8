"""Every packed (or padded) forward gives each answer what it gets alone in a plain transformers forward.

The truth is one unpadded sequence at a time through the unmodified model with eager attention. The batch has contexts
of unequal length (one of a single token), answers of one token, several answers to one context, answers longer than a
sliding window, and answers that hold and end with token 0, which is both pad and stop token.
"""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smolt.data import Preference, Turn
from smolt.models.groups import Groups, cut, from_answers, join, pad
from smolt.models.items import preference_items
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy, Scorer, score_head
from tests import tiny_models, tokenizers_on_the_spot
from tests.invariance.conftest import Models
from tests.tiny_models import apart

pytestmark = pytest.mark.usefixtures("kept_or_recomputed")

TOLERANCE = 1e-5
STOP = tiny_models.STOP


def batch() -> Groups:
    """Three contexts of 17, 1 and 5 tokens with three, one and two answers of 1 to 20 tokens."""
    return from_answers(
        [list(range(3, 20)), [5], [STOP, 31, 32, STOP, 34]],
        [
            [[*range(40, 59), STOP], [STOP], [7, STOP, 3, 4, 5, 6, 8]],
            [[2, 3, STOP]],
            [[9], [8, 7, 6, STOP]],
        ],
    )


def alone(network: PreTrainedModel, groups: Groups, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] from one plain forward for each answer."""
    rows = []
    for owner, answer in zip(groups.owners, groups.answers, strict=True):
        context = groups.contexts[owner]
        logits = network(input_ids=torch.cat([context, answer])[None], use_cache=False).logits[0, len(context) - 1 : -1]
        found = (logits / temperature).log_softmax(dim=-1).gather(1, answer[:, None])[:, 0]
        rows.append(torch.nn.functional.pad(found, (0, groups.mask.shape[1] - len(answer))))
    return torch.stack(rows)


def largest_difference(found: PreTrainedModel, truth: PreTrainedModel) -> float:
    """Largest difference of any gradient entry, relative to the largest gradient entry of the model."""
    expected = {name: value.grad for name, value in truth.named_parameters() if value.grad is not None}
    computed = {name: value.grad for name, value in found.named_parameters() if value.grad is not None}
    assert computed.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    return max(apart(computed[name], expected[name]) for name in expected) / scale


@pytest.mark.parametrize("architecture", tiny_models.CONFIGURATIONS)
def test_forward_and_gradient_equal_single_sequences(architecture: str, models: Models) -> None:
    """Log-probabilities within 1e-5; the gradient of a random weighting of them within 1e-5 of its largest entry."""
    policy, groups = tiny_models.open_full(models(architecture)), batch()
    truth = tiny_models.network(architecture)
    logprobs, _ = policy(groups)
    expected = alone(truth, groups)
    assert apart(logprobs, expected) <= TOLERANCE
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(2)) * groups.mask
    (logprobs * weights).sum().backward()
    (expected * weights).sum().backward()
    assert largest_difference(policy.trunk.network, truth) <= TOLERANCE


@pytest.mark.parametrize("architecture", tiny_models.CONFIGURATIONS)
def test_the_forward_is_the_one_we_say(architecture: str, models: Models) -> None:
    """Six architectures are packed; GPT-Neo and Gemma 2 are padded and say why."""
    trunk = tiny_models.open_full(models(architecture)).trunk
    assert trunk.packed is (architecture in tiny_models.PACKED)
    assert bool(trunk.why) is (architecture in tiny_models.PADDED)


def test_softcapped_logits_keep_the_networks_own_head(models: Models) -> None:
    """Gemma 2 bends its logits after the head: a head of ours would give other log-probabilities."""
    trunk = tiny_models.open_full(models("gemma2")).trunk
    assert not trunk.own_head
    assert not trunk.packed


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo", "gemma2"])
def test_temperature_divides_the_logits_in_every_forward(architecture: str, models: Models) -> None:
    """Packed, padded with our head, and padded with the network's own head."""
    policy, groups = tiny_models.open_full(models(architecture)), batch()
    with torch.no_grad():
        logprobs, _ = policy(groups, 0.6)
        expected = alone(tiny_models.network(architecture), groups, 0.6)
    assert apart(logprobs, expected) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_entropy_is_that_of_the_distribution_the_token_came_from(architecture: str, models: Models) -> None:
    """-sum p log p of the plain forward, for the first answer."""
    policy, groups = tiny_models.open_full(models(architecture)), batch()
    context, answer = groups.contexts[0], groups.answers[0]
    with torch.no_grad():
        _, entropy = policy(groups)
        row = torch.cat([context, answer])[None]
        logits = tiny_models.network(architecture)(input_ids=row).logits[0, len(context) - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert apart(entropy[0], expected) <= TOLERANCE
    assert not entropy[~groups.mask].any()


def test_gradients_pass_through_temperature_and_entropy(models: Models) -> None:
    """At temperature 0.6, of weighted log-probabilities plus weighted entropies: equal to the plain forward's."""
    policy, truth, groups = tiny_models.open_full(models("llama")), tiny_models.network("llama"), batch()
    row = torch.cat([groups.contexts[0], groups.answers[0]])[None]
    weights = torch.randn(2, groups.mask.shape[1], generator=torch.Generator().manual_seed(2))
    logprobs, entropy = policy(groups.select([0]), 0.6)
    (weights[0] * logprobs + weights[1] * entropy).sum().backward()
    logits = truth(input_ids=row).logits[0, len(groups.contexts[0]) - 1 : -1] / 0.6
    plain = torch.distributions.Categorical(logits=logits)
    (weights[0] * plain.log_prob(groups.answers[0]) + weights[1] * plain.entropy()).sum().backward()
    assert largest_difference(policy.trunk.network, truth) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "gpt_neo"])
def test_neither_order_nor_company_matters(architecture: str, models: Models) -> None:
    """Answers in reverse order, and each answer in a micro-batch of its own, keep their log-probabilities."""
    policy, groups = tiny_models.open_full(models(architecture)), batch()
    order = list(reversed(range(len(groups))))
    with torch.no_grad():
        logprobs, _ = policy(groups)
        backwards, _ = policy(groups.select(order))
        single = [policy(part)[0][0] for part in cut(groups, 1)]
    assert apart(backwards, logprobs[order]) <= TOLERANCE
    for row, found in enumerate(single):
        assert apart(found, logprobs[row, : len(found)]) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo"])
def test_a_shared_context_is_the_same_as_a_copy_for_each_answer(architecture: str, models: Models) -> None:
    """3 answers to one context, against 3 contexts with one answer each."""
    policy, groups = tiny_models.open_full(models(architecture)), batch().select([0, 1, 2])
    copies = join([groups.select([row]) for row in range(3)])
    assert (len(groups.contexts), len(copies.contexts)) == (1, 3)
    with torch.no_grad():
        assert apart(policy(groups)[0], policy(copies)[0]) <= TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neo"])
def test_values_and_verdicts_are_read_where_they_belong(architecture: str, models: Models) -> None:
    """values[b, t] at the position that predicts token t, the verdict AT the last token, as in a row alone."""
    trunk = tiny_models.open_full(models(architecture)).trunk
    scorer, groups = Scorer(trunk, None, score_head(trunk.width, 7, torch.device("cpu"))), batch()
    backbone = tiny_models.network(architecture).base_model
    with torch.no_grad():
        values, verdicts = scorer.values(groups), scorer.verdicts(groups)
        for row, (owner, answer) in enumerate(zip(groups.owners, groups.answers, strict=True)):
            context = groups.contexts[owner]
            states = backbone(input_ids=torch.cat([context, answer])[None]).last_hidden_state[0]
            scores = scorer.head(states)[:, 0]
            assert apart(values[row, : len(answer)], scores[len(context) - 1 : -1]) <= TOLERANCE
            assert apart(verdicts[row], scores[-1]) <= TOLERANCE
    assert not values[~groups.mask].any()


def test_padding_changes_nothing_whatever_its_length(models: Models) -> None:
    """A padded row beside one of 38 tokens, and alone: the same log-probabilities."""
    policy, groups = tiny_models.open_full(models("gpt_neo")), batch()
    (ids, _, mask), _, _ = pad(groups)
    assert ids.shape == (6, 37)
    assert mask.sum(dim=1).tolist() == [37, 18, 24, 4, 6, 9]
    with torch.no_grad():
        assert apart(policy(groups)[0][3, :3], policy(groups.select([3]))[0][0]) <= TOLERANCE


def test_the_stop_token_is_learned_where_it_is_also_the_pad_token() -> None:
    """SmolLM2's tokenizer: pad == eos == end of turn. The mask holds the whole answer and its stop token, by length."""
    renderer = Renderer(tokenizers_on_the_spot.smollm())
    assert renderer.tokenizer.pad_token_id == renderer.stop_id
    pairs = [
        Preference((Turn("user", "Who are you?"),), "I am fine.", "Fox."),
        Preference((Turn("user", "Hello there! Is 42 the number?"),), "1,024", "The quick brown fox jumps."),
    ]
    groups = join(preference_items(pairs, renderer, 512).items)
    for row, answer in enumerate(groups.answers):
        assert answer[-1] == renderer.stop_id
        assert groups.mask[row].tolist() == [place < len(answer) for place in range(groups.mask.shape[1])]
    assert int(groups.mask.sum()) == sum(len(answer) for answer in groups.answers)


def test_the_loss_gradient_reaches_the_stop_token(models: Models) -> None:
    """With pad == stop, -log p(stop) alone has a gradient, equal to the plain forward's: nothing hides that token."""
    policy, truth = tiny_models.open_full(models("llama")), tiny_models.network("llama")
    groups = from_answers([[3, 4]], [[[5, STOP]]])
    policy(groups)[0][0, 1].backward()
    alone(truth, groups)[0, 1].backward()
    head = policy.trunk.network.get_output_embeddings().weight.grad
    assert float(head[STOP].abs().max()) > 0
    assert largest_difference(policy.trunk.network, truth) <= TOLERANCE


def test_bare_policies_are_opened_without_dropout(models: Models) -> None:
    """GPT-2's own dropout of 0.1 stays off: two forwards with gradients are bit-equal."""
    policy: Policy = tiny_models.open_full(models("gpt2"))
    first, second = policy(batch())[0], policy(batch())[0]
    assert torch.equal(first, second)
