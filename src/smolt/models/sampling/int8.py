"""Answers from weights in 8 bits, where somebody waits for one and nothing is learned from it: a chat, a server.

One answer at a time is as fast as the weights can be read, and in int8 they are half or a quarter as many bytes.
Prompts are read with the weights as they are: many tokens at once wait for products, not for memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smolt.errors import UserError
from smolt.models.forward.decode_step import FAMILIES, FEW_INT8, LeanDecoder, objection
from smolt.models.forward.logprobs import exact_logits
from smolt.models.forward.precision import NAMES
from smolt.models.forward.probing import stepped
from smolt.models.groups import Groups
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy

OPTION = "--weights int8"

TEXT = """The lighthouse stood at the end of a long stone pier, and every evening an old woman climbed its
stairs to light the lamp. She had done so for forty years. "When I was a girl," she told the children who
visited her on Sundays, "ships still had sails, and a captain knew the coast by its lights." They asked how
many steps there were, and she made them count: three floors with twenty-four steps each, so seventy-two in
all. Water boils at 100 degrees Celsius at sea level, but on a mountain it boils earlier, because the air
above it weighs less. To sort a list of names in Python, call sorted(names); to sort them by length, call
sorted(names, key=len). The capital of France is Paris, the capital of Japan is Tokyo, and the largest ocean
on Earth is the Pacific. Dear neighbour, thank you for your letter. I am sorry that our dog barks at night,
and we will keep him inside from now on. If it happens again, please knock at our door at any hour. First melt
the butter in a small pan, then add the flour and stir until it is smooth. Pour in the milk little by little,
and season with salt, pepper and a pinch of nutmeg. The sauce is ready when it covers the back of a spoon. A
bicycle stays upright because its rider steers into every fall, mostly without noticing it, as anyone who has
learned to ride knows.
"""
PASSAGES, LENGTH = FEW_INT8, 64
"""The text in so many parts, which are read side by side, of so many tokens at most."""
SIDE_BY_SIDE = 64
"""States whose logits are compared at a time."""


@dataclass(frozen=True)
class Departure:
    """How far log-probabilities of a text's next tokens depart.

    Attributes:
        tokens: of the text.
        mean, largest: sizes of the differences, nats.
        same: share of places where the likeliest token is the same.
    """

    tokens: int
    mean: float
    largest: float
    same: float


def answer_in_int8(policy: Policy, renderer: Renderer, window: int, path: str) -> str:
    """Decode this policy's answers from weights in int8 from now on.

    Args:
        policy: whose weights will not change any more.
        renderer: its way from text to tokens.
        window: most positions of a prompt and its answer.
        path: the model's, for messages.

    Returns:
        In a sentence, what that changes and what it takes.

    Raises:
        UserError: this model's answers cannot be decoded so here.
    """
    trunk = policy.trunk
    if trunk.precision.device.type != "cpu":
        raise UserError(f"{OPTION}: is for a processor, and {path} is on {trunk.precision.device.type}; leave it out")
    if not trunk.lean:
        reason = objection(trunk.network) or trunk.why_not_lean or trunk.why
        raise UserError(f"{OPTION}: {path}: {reason}; it is there for {', '.join(FAMILIES)}. Leave it out")
    trunk.use(policy.adapter)
    try:
        decoder = LeanDecoder(trunk.network, policy.adapter, trunk.precision.dtype, window, int8=True)
    except NotImplementedError as error:
        raise UserError(f"{OPTION}: {path}: {error}; leave it out") from None
    found = departure(policy, decoder, renderer.tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    policy.decoder = decoder
    return (
        f"{path}: weights in int8, {decoder.int8_bytes / 1e6:,.0f} MB more: over {found.tokens} tokens of a text the "
        f"log-probabilities differ from those of {NAMES[trunk.precision.dtype]} by {found.mean:.3f} on average and "
        f"{found.largest:.2f} at most, and the likeliest token is the same for {found.same:.1%}"
    )


@torch.inference_mode()
def departure(policy: Policy, decoder: LeanDecoder, text: list[int]) -> Departure:
    """How far a decoder's log-probabilities of a text depart from the policy's own.

    Args:
        policy: with its adapter in use, and our packed forward and head.
        decoder: of the same weights, for three positions at least.
        text: token ids, of which the first `PASSAGES * LENGTH` are looked at; at least three for each passage.
    """
    trunk = policy.trunk
    length = min(LENGTH, len(text) // PASSAGES, len(decoder.cosine))
    rows = torch.tensor(text[: PASSAGES * length]).view(PASSAGES, length)
    groups = Groups(
        tuple(rows[:, :1]), tuple(rows[:, 1:]), tuple(range(PASSAGES)), torch.zeros(PASSAGES, dtype=torch.bool)
    )
    own = trunk.states(groups)[0].view(PASSAGES, length - 1, -1)[:, 1:].flatten(0, 1)  # a first token is not stepped to
    others = stepped(trunk.run, decoder.step, groups, trunk.precision.device)
    head, targets = trunk.head.to(own.dtype), rows[:, 2:].flatten()
    differences, same = [], []
    for some, there, wanted in zip(*(part.split(SIDE_BY_SIDE) for part in (own, others, targets)), strict=True):
        first, second = exact_logits(some, head), torch.cat([decoder.logits(few) for few in there.split(FEW_INT8)])
        same.append(first.argmax(dim=-1) == second.argmax(dim=-1))
        differences.append((_logprobs(first, wanted) - _logprobs(second, wanted)).abs())
    apart = torch.cat(differences)
    return Departure(len(apart), float(apart.mean()), float(apart.max()), float(torch.cat(same).float().mean()))


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
