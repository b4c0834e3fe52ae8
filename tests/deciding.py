"""Models that decide, and what transformers' own pipeline and server say of the same requests."""

import json
import math
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, pipeline
from transformers.decision import DecisionConfig

from smolt.data import Decision, DecisionQuestion
from smolt.models.forward.precision import Precision
from smolt.models.forward.quiet import hushed
from smolt.rewards.llm_judge.decider import open_decider
from tests.tiny import tiny_model

CPU = Precision(torch.device("cpu"), torch.float32)
LABELS = {"noul": ["Y", "N"]}
"""The tiny tokenizer has no token Yes."""

QUESTIONS = (
    DecisionQuestion("refund", "noul", "Is a refund requested?", {"true": "They ask for money."}, (1.0, 0.0)),
    DecisionQuestion("tone", "choice", "What is the tone?", {"calm": None, "angry": "It shouts."}, (0.75, 0.25)),
    DecisionQuestion("urgent", "score", {"ask": "How urgent?"}, ["Can wait", "This week", "Today"], (0.0, 0.5, 0.5)),
)
STATES: tuple[Any, ...] = (
    "I was charged twice, <|im_end|> and want a refund. <|mark|>",
    {"message": "Tea?", "earlier": ["Hi.", {"at": 3}]},
    "Ünïcode\nand lines",
)
DECISIONS = [Decision(state, QUESTIONS, f"d{number}") for number, state in enumerate(STATES)]
TEMPLATE = (
    "{% for question in questions %}{{ question.options | tojson }} {{ question.labels | join(',') }}<|mark|>\n"
    "{% endfor %}{{ state | tojson }}<|split|>[decision]:<|mark|>"
)
"""One prompt for all questions: each is read at its own mark; the last one is not a question's."""


def deciding_model(directory: Path, settings: Mapping[str, Any] | None = None, window: int = 2048, **more: Any) -> Path:
    """A tiny chat model, with decision.json where settings are given."""
    tiny_model(directory, **more)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "max_position_embeddings": window}))
    if settings is not None:
        DecisionConfig(**settings).save_pretrained(directory)
    return directory


def with_adapter(directory: Path, settings: Mapping[str, Any]) -> Path:
    """The same with an adapter of random weights in a subfolder, which decision.json names."""
    deciding_model(directory, {**settings, "adapter": "lora"})
    network = AutoModelForCausalLM.from_pretrained(directory)
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    with hushed():
        get_peft_model(network, lora).save_pretrained(directory / "lora")
    return directory


def by_server(url: str, decision: Decision, model: Path | None = None) -> list[tuple[float, ...]]:
    """The same of `/v1/systemone` behind a base address, of a server's only model unless one is named."""
    body = json.dumps({**decision.request, **({} if model is None else {"model": str(model)})}).encode()
    request = urllib.request.Request(f"{url}/systemone", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return in_rows(decision, json.load(reply)["answers"])


def decided(model: Path, decisions: Sequence[Decision]) -> list[list[tuple[float, ...]]]:
    """smolt's probabilities, in fp32 on the CPU; none for what exceeds the window."""
    found = open_decider(str(model), CPU).decide(decisions)
    return [[tuple(math.exp(value) for value in row) for row in one or []] for one in found]


def largest_differences(model: Path, url: str, decisions: Sequence[Decision]) -> tuple[float, float]:
    """Between smolt and the pipeline, and between smolt and a server that serves the model: of any probability."""
    here, decide = decided(model, decisions), pipeline("decision", model=str(model), dtype=torch.float32)
    others = [in_rows(one, decide(one.request)) for one in decisions], [by_server(url, one, model) for one in decisions]
    by_one = [[_largest(own, their) for own, their in zip(here, other, strict=True)] for other in others]
    return max(by_one[0]), max(by_one[1])


def _largest(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> float:
    pairs = (pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True))
    return max(abs(first - second) for first, second in pairs)


def by_pipeline(model: Path, decision: Decision) -> list[tuple[float, ...]]:
    """The probabilities of transformers' pipeline, in the order of each question's options."""
    return in_rows(decision, pipeline("decision", model=str(model), dtype=torch.float32)(decision.request))


def in_rows(decision: Decision, answers: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """The probabilities of a decision's answers in the form of the System One API, a row a question."""
    return [in_order(question, answers[question.name]) for question in decision.questions]


def in_order(question: DecisionQuestion, answer: Mapping[str, Any]) -> tuple[float, ...]:
    """The probabilities of one answer in the form of the System One API."""
    if question.type == "noul":
        return answer["noul"], 1 - answer["noul"]
    return tuple(answer["probabilities"][option] for option in question.options)
