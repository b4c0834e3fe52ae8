"""TRL's side of the comparisons. Every setting that its speed or its loss relies on is named here."""

from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.utils import logging

from bench.alike import ANSWERS, BETA, CENTERING, KL, LONGEST, LORA, PROMPTS, RATE
from bench.fill import fill
from bench.hh_pairs import read_rows
from bench.stopwatch import Stopwatch


def shared(settings: dict[str, Any], size: int) -> dict[str, Any]:
    """Arguments of every trainer, for updates of `size` rows."""
    micro_batch = settings.get("micro_batch", size)
    return {
        "output_dir": str(Path(settings["folder"]) / "trl"),
        "model_init_kwargs": {"dtype": {"bf16": "bfloat16", "fp32": "float32"}[settings["weights"]]},
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": size // micro_batch,
        "max_steps": settings["updates"],
        "bf16": settings["dtype"] == "bf16",
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def adapter(**more: Any) -> LoraConfig:
    return LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=list(LORA["targets"]), **more)


def open_trainer(settings: dict[str, Any]) -> Any:
    """The work's trainer on the same rows in the same order: they replace a row that its own preparation has seen."""
    torch.set_num_threads(settings["threads"])
    logging.set_verbosity_error()
    made = {"sft": _sft, "reward": _reward, "dpo": _dpo, "grpo": _grpo}[settings["work"]](settings)
    if settings["work"] != "grpo":
        made.train_dataset = Dataset.from_list(rows_of(settings))
    return made


def rows_of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the trainer's collator takes."""
    rows = read_rows(settings["folder"])
    if settings["work"] == "sft":
        return [
            {
                "input_ids": row["prompt_ids"] + row["chosen_ids"],
                "labels": [-100] * len(row["prompt_ids"]) + row["chosen_ids"],
            }
            for row in rows
        ]
    if settings["work"] == "reward":
        return [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in rows]
    return [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]


def _common(settings: dict[str, Any]) -> dict[str, Any]:
    folder = Path(settings["folder"]) / "model"
    return {
        "model": str(folder),
        "processing_class": AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    }


def _sft(settings: dict[str, Any]) -> trl.SFTTrainer:
    args = trl.SFTConfig(
        **shared(settings, settings["pairs"]),
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        padding_free=False,
        loss_type="nll",
    )
    one = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    return trl.SFTTrainer(args=args, train_dataset=one, peft_config=adapter(task_type="CAUSAL_LM"), **_common(settings))


def _reward(settings: dict[str, Any]) -> trl.RewardTrainer:
    args = trl.RewardConfig(
        **shared(settings, settings["pairs"]),
        train_sampling_strategy="sequential",
        max_length=None,
        center_rewards_coefficient=CENTERING,
    )
    one = Dataset.from_list([{"chosen": "a b", "rejected": "a c"}])
    with_head = adapter(task_type="SEQ_CLS", modules_to_save=["score"])
    return trl.RewardTrainer(args=args, train_dataset=one, peft_config=with_head, **_common(settings))


def _dpo(settings: dict[str, Any]) -> trl.DPOTrainer:
    args = trl.DPOConfig(
        **shared(settings, settings["pairs"]),
        train_sampling_strategy="sequential",
        max_length=None,
        beta=BETA,
        loss_type=["sigmoid"],
        precompute_ref_log_probs=False,
    )
    one = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    return trl.DPOTrainer(args=args, train_dataset=one, peft_config=adapter(task_type="CAUSAL_LM"), **_common(settings))


def _grpo(settings: dict[str, Any]) -> trl.GRPOTrainer:
    args = trl.GRPOConfig(
        **shared(settings, ANSWERS),
        num_generations=ANSWERS // PROMPTS,
        max_completion_length=LONGEST,
        temperature=1.0,
        beta=KL,
        loss_type="dapo",
        scale_rewards="none",
        mask_truncated_completions=False,
        shuffle_dataset=False,
    )
    common = _common(settings)
    texts = [common["processing_class"].decode(row["question_ids"]) for row in read_rows(settings["folder"])]
    return trl.GRPOTrainer(
        args=args,
        reward_funcs=varied,
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        peft_config=adapter(task_type="CAUSAL_LM"),
        **common,
    )


LENGTHS: list[int] = []  # of all answers, in tokens


def varied(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The reward of the other side: the length in characters, modulo 7."""
    LENGTHS.extend(map(len, completion_ids))
    return [float(len(text) % 7) for text in completions]


def seconds_of_updates(settings: dict[str, Any]) -> dict[str, Any]:
    """Updates by train(), timed from the end of one optimizer step to the end of the next."""
    trainer, watch = open_trainer(settings), Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    found: dict[str, Any] = {"seconds": watch.seconds}
    if settings["work"] == "grpo":
        found["length"] = sum(LENGTHS) / len(LENGTHS)
    return found


def first_loss(settings: dict[str, Any]) -> float:
    """The fp32 loss of the first update's rows, with the weights of `fill`."""
    trainer = open_trainer({**settings, "dtype": "fp32", "weights": "fp32"})
    fill({name: value for name, value in trainer.model.named_parameters() if value.requires_grad})
    batch = trainer.data_collator(rows_of(settings)[: settings["pairs"]])
    return float(trainer.compute_loss(trainer.model, batch).detach())
