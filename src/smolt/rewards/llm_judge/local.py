"""A language model on this machine as judge: the log-probabilities it gives to the strings of the choices.

The question is computed once, with the choices as its answers, in one packed forward; nothing is parsed, so models far
too small to follow an instruction still judge. Probabilities are those of the whole strings: "A" may be two tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from smolt.config import Model, make_block
from smolt.data import Turn
from smolt.models.forward.precision import Precision
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import answer_sums, from_answers, without_gradient
from smolt.models.publishing.model_card import shown_place
from smolt.models.rendering import Renderer
from smolt.models.roles import Policy
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.prompts import Prompt
from smolt.runs.chunks import part

MEMORY = 2.0  # GiB for one forward
CHUNK = 64  # prompts between two times that verdicts are kept
WIDTH = 32  # rationales written side by side


def open_local(path: str, precision: Precision, rationale: int) -> Asker:
    """Load a local judge.

    Args:
        path: a directory, run or hub name.
        precision: where and how precisely.
        rationale: tokens of reasoning, greedy, before the choice; 0 = none.

    Raises:
        UserError: there is no language model.
    """
    ground = replace(open_ground(make_block(Model, path=path)), precision=precision)
    policy = load_policy(path, precision)
    identity = {**ground.identity, "window": ground.window, "dtype": str(precision.dtype)}

    def ask(prompts: Sequence[Prompt]) -> Iterator[list[tuple[int, Reply]]]:
        for start in range(0, len(prompts), CHUNK):
            chunk = prompts[start : start + CHUNK]
            part(range(start, start + len(chunk)), len(prompts))
            replies = _answer(chunk, policy, ground, rationale)
            yield [(start + number, reply) for number, reply in enumerate(replies)]

    name = shown_place(str(Path(path).resolve())) if Path(path).exists() else path
    return Asker(name, {"local": identity, "rationale": rationale}, ask, (path, name))


def _answer(prompts: Sequence[Prompt], policy: Policy, ground: Ground, rationale: int) -> list[Reply]:
    """One reply for each prompt, in order; what does not fit into the window abstains."""
    too_long = Reply(status="abstained", reason=f"longer than the judge's window of {ground.window} tokens")
    reasons = _rationales(prompts, policy, ground, rationale) if rationale else {}
    replies = [too_long] * len(prompts)
    places, contexts, answers = [], [], []
    for place, prompt in enumerate(prompts):
        if rationale and place not in reasons:
            continue
        turns = prompt.turns
        if rationale:
            turns = (*turns, Turn("assistant", reasons[place]), Turn("user", prompt.last))
        context, choices = ground.renderer.context(turns), choice_tokens(ground.renderer, prompt)
        if len(context) + max(map(len, choices)) <= ground.window:
            places.append(place)
            contexts.append(context)
            answers.append(choices)
    if not places:
        return replies
    groups = from_answers(contexts, answers)
    tokens = policy.trunk.micro_tokens(MEMORY)
    logprobs = without_gradient(groups, tokens, lambda part: policy(part)[0])
    sums = answer_sums(logprobs, groups.mask).tolist()
    for number, place in enumerate(places):
        choices = answers[number]
        replies[place] = Reply(tuple(sums[: len(choices)]), text=reasons.get(place, ""))
        sums = sums[len(choices) :]
    return replies


def choice_tokens(renderer: Renderer, prompt: Prompt) -> list[list[int]]:
    """The choices as answers; with the stop token where one choice begins another."""
    return [renderer.answer(choice, stop=prompt.exact) for choice in prompt.choices]


def _rationales(prompts: Sequence[Prompt], policy: Policy, ground: Ground, longest: int) -> dict[int, str]:
    """What the judge writes before it chooses, greedily, for the prompts that leave room for it."""
    contexts = {place: ground.renderer.context(prompt.turns) for place, prompt in enumerate(prompts)}
    fitting = {place: context for place, context in contexts.items() if len(context) + longest <= ground.window}
    if not fitting:
        return {}
    drawing = Drawing(longest, 0.0, WIDTH, ground.renderer.stop_ids)
    with torch.no_grad():
        groups = sample(policy, list(fitting.values()), 1, drawing, (0,))
    texts = [ground.renderer.decode(answer.tolist()) for answer in groups.answers]
    return {place: text.strip() or "..." for place, text in zip(fitting, texts, strict=True)}
