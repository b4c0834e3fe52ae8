"""Captures the parity goldens from the references: `python -m tests.parity.capture` (needs the extra `peers`).

The references are plain transformers (SFT) and TRL 1.16.0 (reward model, DPO, CPO with SimPO, ORPO, KTO, GRPO, GKD,
online DPO), in fp32 on the CPU, on the models and rows of tests/parity/tiny.py. Every default that a number relies on
is named in its settings (tests/parity/cases.py) and is written into the golden file, because defaults move: TRL's
`use_bias_correction_kl` flipped between releases.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from tests.parity import tiny
from tests.parity.cases import (
    CPO_CASES,
    CPO_SHARED,
    DPO_CASES,
    DPO_SHARED,
    GKD_CASES,
    GRPO_CASES,
    GRPO_SHARED,
    KTO_CASES,
    KTO_SHARED,
    ONLINE_DPO_CASES,
    ONLINE_DPO_REWARDS,
    ONLINE_DPO_SHARED,
    ORPO_CASES,
    REWARD_CASES,
    TRAINER,
    TRL_VERSION,
    Case,
)

GOLDEN = Path(__file__).parent / "golden"


def fingerprint(model: torch.nn.Module, loss: torch.Tensor) -> Case:
    """The loss, and the gradient it gives the model."""
    model.zero_grad()
    loss.backward()
    return {"loss": loss.item(), "gradients": tiny.gradients(model)}


def sft() -> dict[str, Case]:
    """transformers' own causal loss: labels -100 on context and padding, mean over the answer tokens of the batch."""
    model = tiny.policy()
    rows = [context + answer for context, answer in zip(tiny.CONTEXTS, tiny.CHOSEN, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tiny.PAD] * (width - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = ids.masked_fill(attention == 0, -100)
    for row, context in enumerate(tiny.CONTEXTS):
        labels[row, : len(context)] = -100
    case = fingerprint(model, model(input_ids=ids, attention_mask=attention, labels=labels).loss)
    pairs = zip(tiny.CONTEXTS, tiny.CHOSEN, strict=True)
    return {"chosen": {"settings": {}, **case, "logprobs": [tiny.logprobs(model, *pair) for pair in pairs]}}


def preference_rows(margin: float | None = None) -> list[Case]:
    """The three pairs as token ids, under the column names of TRL's preference collator."""
    triples = zip(tiny.CONTEXTS, tiny.CHOSEN, tiny.REJECTED, strict=True)
    rows = [{"prompt_ids": context, "chosen_ids": good, "rejected_ids": bad} for context, good, bad in triples]
    return [row | ({} if margin is None else {"margin": margin}) for row in rows]


def reward_model(folder: str) -> dict[str, Case]:
    """TRL's RewardTrainer.compute_loss on the three pairs."""
    import trl
    from datasets import Dataset

    cases: dict[str, Case] = {}
    for name, settings in REWARD_CASES.items():
        model = tiny.scorer()
        own = {key: value for key, value in settings.items() if key != "margin"}
        rows = [
            {
                "chosen_ids": row["prompt_ids"] + row["chosen_ids"],
                "rejected_ids": row["prompt_ids"] + row["rejected_ids"],
            }
            | ({"margin": settings["margin"]} if "margin" in settings else {})
            for row in preference_rows()
        ]
        trainer = trl.RewardTrainer(
            model=model,
            args=trl.RewardConfig(output_dir=folder, max_length=None, **TRAINER, **own),
            train_dataset=Dataset.from_list(rows),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        batch = trainer.data_collator(rows)
        with torch.no_grad():
            scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
        case = fingerprint(trainer.model, trainer.compute_loss(trainer.model, batch))
        cases[name] = {"settings": settings, **case, "scores": scores.tolist()}
    return cases


def dpo(folder: str) -> dict[str, Case]:
    """TRL's DPOTrainer.compute_loss on the three pairs, against a reference with other weights."""
    import trl
    from datasets import Dataset

    rows = preference_rows()
    cases: dict[str, Case] = {}
    for name, settings in DPO_CASES.items():
        trainer = trl.DPOTrainer(
            model=tiny.policy(),
            ref_model=tiny.reference(),
            args=trl.DPOConfig(output_dir=folder, **TRAINER, **DPO_SHARED, **settings),
            train_dataset=Dataset.from_list([{"prompt": "w9", "chosen": "w10", "rejected": "w11"}]),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        batches = [[row] for row in rows] if settings["loss_type"] == ["aot"] else [rows]
        losses = [trainer.compute_loss(trainer.model, trainer.data_collator(batch)) for batch in batches]
        case = fingerprint(trainer.model, torch.stack(losses).mean())
        cases[name] = {"settings": {**DPO_SHARED, **settings}, **case}
    return cases


def answered(trainer: Any, contexts: list[list[int]]) -> Case:
    """The three pairs with these contexts, as TRL's collator for its older trainers makes a batch of them."""
    rows = []
    for context, good, bad in zip(contexts, tiny.CHOSEN, tiny.REJECTED, strict=True):
        row: Case = {"prompt_input_ids": context, "prompt_attention_mask": [1] * len(context)}
        for side, answer in (("chosen", good), ("rejected", bad)):
            row[f"{side}_input_ids"] = context + answer
            row[f"{side}_attention_mask"] = [1] * len(context + answer)
            row[f"{side}_labels"] = [-100] * len(context) + answer
        rows.append(row)
    batch: Case = trainer.data_collator(rows)
    return batch


def cpo(folder: str) -> dict[str, Case]:
    """TRL's CPOTrainer (SimPO is a loss of it) on the three pairs."""
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    cases: dict[str, Case] = {}
    for name, changes in CPO_CASES.items():
        settings = CPO_SHARED | changes
        trainer = CPOTrainer(
            model=tiny.policy(),
            args=CPOConfig(output_dir=folder, **TRAINER, **settings),
            train_dataset=Dataset.from_list([{"prompt": "w9", "chosen": "w10", "rejected": "w11"}]),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        loss, _ = trainer.get_batch_loss_metrics(trainer.model, answered(trainer, tiny.CONTEXTS))
        cases[name] = {"settings": settings, **fingerprint(trainer.model, loss)}
    return cases


def orpo(folder: str) -> dict[str, Case]:
    """TRL's ORPOTrainer on the three pairs: whole on contexts of one token, the odds ratio alone on the usual ones."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    cases: dict[str, Case] = {}
    for name, settings in ORPO_CASES.items():
        trainer = ORPOTrainer(
            model=tiny.policy(),
            args=ORPOConfig(output_dir=folder, max_length=64, beta=settings["beta"], **TRAINER),
            train_dataset=Dataset.from_list([{"prompt": "w9", "chosen": "w10", "rejected": "w11"}]),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        contexts = [[tiny.START]] * 3 if settings["nll"] else tiny.CONTEXTS
        batch = answered(trainer, contexts)
        if settings["nll"]:
            loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
        else:
            chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
            loss = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
        cases[name] = {"settings": settings, "contexts": contexts, **fingerprint(trainer.model, loss)}
    return cases


def kto(folder: str) -> dict[str, Case]:
    """TRL's KTOTrainer.compute_loss on six answers: each context with its good, then with its bad one.

    A context's answer for the KL is that of the row before, as TRL rotates the answers of a batch.
    """
    import trl
    from datasets import Dataset

    rows = [
        {"prompt_ids": context, "completion_ids": answer, "label": good}
        for answers, good in ((tiny.CHOSEN, True), (tiny.REJECTED, False))
        for context, answer in zip(tiny.CONTEXTS, answers, strict=True)
    ]
    rows = [row | {"KL_completion_ids": rows[number - 1]["completion_ids"]} for number, row in enumerate(rows)]
    cases: dict[str, Case] = {}
    for name, changes in KTO_CASES.items():
        settings = KTO_SHARED | changes
        trainer = trl.KTOTrainer(
            model=tiny.policy(),
            ref_model=tiny.reference(),
            args=trl.KTOConfig(output_dir=folder, **TRAINER, **settings),
            train_dataset=Dataset.from_list([{"prompt": "w9", "completion": "w10", "label": True}] * 2),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        kl = trainer._metrics["eval"]["kl"][-1]
        cases[name] = {"settings": settings, **fingerprint(trainer.model, loss), "kl": kl}
    return cases


def grpo_batch(temperature: float, on_policy: bool) -> Case:
    """Prompts padded left, completions padded right, as TRL's rollouts are, with fixed old and reference log-probs."""
    contexts = [context for context, group in zip(tiny.CONTEXTS, tiny.ANSWERS, strict=False) for _ in group]
    answers = [answer for group in tiny.ANSWERS for answer in group]
    before, after = max(map(len, contexts)), max(map(len, answers))

    def padded(rows: list[list[Any]], fill: Any) -> torch.Tensor:
        return torch.tensor([row + [fill] * (after - len(row)) for row in rows])

    def given(model: Any) -> torch.Tensor:
        pairs = zip(contexts, answers, strict=True)
        return padded([tiny.logprobs(model, *pair, temperature) for pair in pairs], 0.0)

    mask = padded([[1] * len(answer) for answer in answers], 0)
    batch = {
        "prompt_ids": torch.tensor([[tiny.PAD] * (before - len(row)) + row for row in contexts]),
        "prompt_mask": torch.tensor([[0] * (before - len(row)) + [1] * len(row) for row in contexts]),
        "completion_ids": padded(answers, tiny.PAD),
        "completion_mask": mask,
        "advantages": torch.tensor(tiny.ADVANTAGES),
        "ref_per_token_logps": given(tiny.reference()),
        "num_items_in_batch": mask.sum(),
    }
    return batch if on_policy else batch | {"old_per_token_logps": given(tiny.sampled())}


def grpo(folder: str) -> dict[str, Case]:
    """TRL's GRPOTrainer._compute_loss on eight fixed answers; in eval mode, so that no accumulation divides it."""
    import trl
    from datasets import Dataset

    # With beta > 0 TRL loads a reference from where the policy came from; the loss reads the batch's log-probs instead.
    origin = tiny.save(tiny.policy(), Path(folder) / "policy")
    cases: dict[str, Case] = {}
    for name, changes in GRPO_CASES.items():
        on_policy = changes.get("on_policy", False)
        settings = GRPO_SHARED | {key: value for key, value in changes.items() if key != "on_policy"}
        trainer = trl.GRPOTrainer(
            model=transformers.LlamaForCausalLM.from_pretrained(origin),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=trl.GRPOConfig(output_dir=folder, per_device_train_batch_size=8, **TRAINER, **settings),
            train_dataset=Dataset.from_list([{"prompt": "w9"}, {"prompt": "w10"}]),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        batch = grpo_batch(settings["temperature"], on_policy)
        loss = trainer._compute_loss(trainer.model, batch)
        recorded: Case = {
            key: batch[key].tolist() for key in ("ref_per_token_logps", "old_per_token_logps") if key in batch
        }
        case = fingerprint(trainer.model, loss)
        cases[name] = {"settings": settings | {"on_policy": on_policy}, **case, **recorded}
    return cases


def gkd(folder: str) -> dict[str, Case]:
    """TRL's GKDTrainer.compute_loss on the three chosen answers, as if the student had given them."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    rows = [context + answer for context, answer in zip(tiny.CONTEXTS, tiny.CHOSEN, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tiny.PAD] * (width - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = ids.masked_fill(attention == 0, -100)
    for row, context in enumerate(tiny.CONTEXTS):
        labels[row, : len(context)] = -100
    turns = [{"role": "user", "content": "w9"}, {"role": "assistant", "content": "w10"}]
    cases: dict[str, Case] = {}
    for name, settings in GKD_CASES.items():
        trainer = GKDTrainer(
            model=tiny.policy(),
            teacher_model=tiny.reference(),
            args=GKDConfig(output_dir=folder, max_length=64, **TRAINER, **settings),
            train_dataset=Dataset.from_list([{"messages": turns}]),
            processing_class=tiny.tokenizer(),
        )
        trainer.model.eval()
        loss = trainer.compute_loss(trainer.model, {"input_ids": ids, "attention_mask": attention, "labels": labels})
        cases[name] = {"settings": settings, **fingerprint(trainer.model, loss)}
    return cases


def online_dpo(folder: str) -> dict[str, Case]:
    """TRL's OnlineDPOTrainer.training_step on two fixed answers to each context, rated by ONLINE_DPO_REWARDS."""
    from datasets import Dataset
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    answers = [*tiny.CHOSEN, *tiny.REJECTED]
    rewards = [pair[side] for side in (0, 1) for pair in ONLINE_DPO_REWARDS]
    before, after = max(map(len, tiny.CONTEXTS)), max(map(len, answers))
    rolled = (
        torch.tensor([[tiny.PAD] * (before - len(row)) + row for row in tiny.CONTEXTS * 2]),
        torch.tensor([[0] * (before - len(row)) + [1] * len(row) for row in tiny.CONTEXTS * 2]),
        torch.tensor([row + [tiny.PAD] * (after - len(row)) for row in answers]),
        torch.tensor([[1] * len(row) + [0] * (after - len(row)) for row in answers]),
        None,
    )
    cases: dict[str, Case] = {}
    for name, changes in ONLINE_DPO_CASES.items():
        settings = ONLINE_DPO_SHARED | changes
        trainer = OnlineDPOTrainer(
            model=tiny.policy(),
            ref_model=tiny.reference(),
            reward_funcs=lambda completions, **_: rewards,
            args=OnlineDPOConfig(output_dir=folder, max_new_tokens=8, **TRAINER, **settings),
            train_dataset=Dataset.from_list([{"prompt": "w9"}]),
            processing_class=tiny.tokenizer(),
        )
        trainer._generate = lambda *_: rolled
        trainer.model.zero_grad()
        loss = trainer.training_step(trainer.model, {"prompt": ["w9"] * 3})
        cases[name] = {"settings": settings, "loss": loss.item(), "gradients": tiny.gradients(trainer.model)}
    return cases


CAPTURES: Mapping[str, Callable[[str], dict[str, Case]]] = {
    "sft": lambda folder: sft(),
    "reward_model": reward_model,
    "dpo": dpo,
    "cpo": cpo,
    "orpo": orpo,
    "kto": kto,
    "grpo": grpo,
    "gkd": gkd,
    "online_dpo": online_dpo,
}


def capture(name: str) -> Case:
    """The goldens of one algorithm, from the references as they are installed now."""
    with tempfile.TemporaryDirectory() as folder:
        cases = CAPTURES[name](folder)
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    if name != "sft":
        versions["trl"] = TRL_VERSION
    return {"captured_from": versions, "cases": cases}


def golden(name: str) -> Case:
    """The stored goldens of one algorithm."""
    stored: Case = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return stored


def main() -> None:
    """Capture everything and write it down."""
    import trl

    if trl.__version__ != TRL_VERSION:
        raise SystemExit(f"goldens are captured from TRL {TRL_VERSION}, here is {trl.__version__}")
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in CAPTURES:
        path = GOLDEN / f"{name}.json"
        path.write_text(json.dumps(capture(name), indent=1) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
