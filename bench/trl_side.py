"""TRL's side of the comparison. Every setting that its speed or its loss relies on is named here."""

import time
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from transformers.utils import logging

from bench.dpo_against_trl import BETA, LORA, RATE
from bench.hh_pairs import read_rows
from bench.smolt_side import fill


class Stopwatch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """The time at which training began and at which each optimizer step had ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def stopwatch() -> Stopwatch:
    return Stopwatch()


def open_trainer(settings: dict[str, Any]) -> trl.DPOTrainer:
    """A DPOTrainer on the same token ids in the same order: they replace a row that its own preparation has seen."""
    folder, micro_batch = Path(settings["folder"]), settings.get("micro_batch", settings["pairs"])
    torch.set_num_threads(settings["threads"])
    logging.set_verbosity_error()
    trainer = trl.DPOTrainer(
        model=str(folder / "model"),
        args=trl.DPOConfig(
            output_dir=str(folder / "trl"),
            model_init_kwargs={"dtype": {"bf16": "bfloat16", "fp32": "float32"}[settings["weights"]]},
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=settings["pairs"] // micro_batch,
            max_steps=settings["updates"],
            train_sampling_strategy="sequential",
            bf16=settings["dtype"] == "bf16",
            use_cpu=True,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            max_length=None,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            beta=BETA,
            loss_type=["sigmoid"],
            precompute_ref_log_probs=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(folder / "model", trust_remote_code=False),
        peft_config=LoraConfig(
            r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=list(LORA["targets"]), task_type="CAUSAL_LM"
        ),
    )
    trainer.train_dataset = Dataset.from_list(read_rows(settings["folder"]))
    return trainer


def first_loss(settings: dict[str, Any]) -> float:
    """The fp32 loss of the first update's pairs, with the adapter of `fill`."""
    trainer = open_trainer({**settings, "dtype": "fp32", "weights": "fp32"})
    fill({name: value for name, value in trainer.model.named_parameters() if value.requires_grad})
    batch = trainer.data_collator(read_rows(settings["folder"])[: settings["pairs"]])
    return float(trainer.compute_loss(trainer.model, batch).detach())
