"""How the cost of an update grows with its answers, and what share of a tiny model's update is not arithmetic.

Forward and backward of twice the answers should take twice as long, and clearly less where answers share their context.
The share is the wall time of an update, drawn and learned from, in which no operator of the library was at work:
Python, and whatever else stands between two operators.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from bench.against_limits import best
from bench.against_trl import cores
from bench.measuring import in_child, machine, serve, show

NAME = "growth"
MODULE = f"bench.{NAME}"
AIMS = {"twice_the_answers": 2.1, "twice_with_shared_contexts": 2.0}
CONTEXT, ANSWER, ANSWERS = 200, 100, 8
TINY = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}


# --- in the children --------------------------------------------------------------------------------------------------


def growth(settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds of forward and backward for n and 2n answers: of a context each, and of one context for all."""
    policy = _policy(settings, {"num_hidden_layers": settings["layers"], "vocab_size": settings["vocabulary"]})
    vocabulary = settings["vocabulary"]

    def work(contexts: int, answers: int) -> Callable[[], None]:
        from smolt.models.groups import from_answers

        answered = [_ids(answers, ANSWER, vocabulary)] * contexts
        groups = from_answers(_ids(contexts, CONTEXT, vocabulary), answered)
        return lambda: policy(groups)[0].sum().backward()

    return {
        "twice_the_answers": _ratio(work(ANSWERS, 1), work(2 * ANSWERS, 1)),
        "twice_with_shared_contexts": _ratio(work(1, ANSWERS), work(1, 2 * ANSWERS)),
    }


def _ratio(less: Callable[[], None], more: Callable[[], None]) -> float:
    """How many times as long the second takes, each at its best of five, in turn: a machine has slower minutes."""
    seconds = [(best(less, 1), best(more, 1)) for _ in range(5)]
    return min(pair[1] for pair in seconds) / min(pair[0] for pair in seconds)


def tiny(settings: dict[str, Any]) -> dict[str, Any]:
    """One update of a model of one million parameters: 16 questions, 8 answers of up to 20 tokens each."""
    from torch.profiler import ProfilerActivity, profile

    from smolt.models.sampling import Drawing, sample

    policy = _policy(settings, TINY)
    contexts = _ids(16, 20, TINY["vocab_size"])

    def update() -> None:
        groups = sample(policy, contexts, 8, Drawing(20, 1.0, 128, frozenset()), (0, 1))
        policy(groups)[0].sum().backward()

    seconds = best(update, 3)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        watched = best(update, 1)
    operators = sum(event.self_cpu_time_total for event in profiled.key_averages()) / 1e6 / 2  # with its warm-up
    return {"tiny_update_seconds": seconds, "tiny_share_outside_operators": max(0.0, 1 - operators / watched)}


def _policy(settings: Mapping[str, Any], shape: Mapping[str, int]) -> Any:
    """A random Llama, all of whose weights are trained."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from bench.hh_pairs import SMOLLM2_135M
    from smolt.models.forward.precision import choose_precision
    from smolt.models.locating import locate
    from smolt.models.roles import open_policy

    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2} if shape.get("hidden_size") else {}
    network = LlamaForCausalLM(LlamaConfig(**{**SMOLLM2_135M, **shape, **heads}))
    network.save_pretrained(settings["folder"])
    return open_policy(locate(settings["folder"]), choose_precision("cpu", "fp32", settings["threads"]), None, 0)


def _ids(rows: int, length: int, vocabulary: int) -> list[list[int]]:
    return [[(31 * row + 7 * place) % (vocabulary - 1) + 1 for place in range(length)] for row in range(rows)]


# --- in the parent ----------------------------------------------------------------------------------------------------


def run(given: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=6, help="of the SmolLM2-135M shape for the growth (6)")
    parser.add_argument("--vocabulary", type=int, default=49152, help="of the same (49152)")
    parser.add_argument("--threads", type=int, default=None, help="all cores unless given")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args(given)
    described = machine(chosen.threads or cores())
    figures: dict[str, Any] = {}
    for task in ("growth", "tiny"):
        with TemporaryDirectory(prefix="smolt-bench-") as folder:
            settings = {"folder": folder, **vars(chosen), "threads": described["threads"]}
            figures |= in_child(MODULE, task, settings, described["threads"])
    return {"bench": NAME, "machine": described, "layers": chosen.layers, "figures": figures, "aims": AIMS}


def table(result: Mapping[str, Any]) -> str:
    """The figures for people, those with an aim beside it."""
    return "\n".join(
        f"{name:<32}{value:>8.3f}" + (f"   aim at most {AIMS[name]:g}" if name in AIMS else "")
        for name, value in result["figures"].items()
    )


def main(given: Sequence[str]) -> int:
    """Run from `python -m bench`."""
    return show(NAME, run, table, given)


if __name__ == "__main__":
    serve({"growth": growth, "tiny": tiny})
    sys.exit(0)
