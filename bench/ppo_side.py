"""PPO by the last TRL that has it (1.12.0), in an environment of its own: this module imports nothing of smolt."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

from bench.alike import ANSWERS, EPOCHS, LONGEST, LORA, PROMPTS, RATE
from bench.stopwatch import Stopwatch


class NoReward(nn.Module):
    """A reward model without work, as the other side's reward is a line of Python."""

    base_model_prefix = "body"

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))

    def body(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[(input_ids % 7)[..., None].float()])

    def score(self, states: Tensor) -> Tensor:
        return states


def seconds_of_updates(settings: dict[str, Any]) -> dict[str, Any]:
    """Updates by PPOTrainer.train(); LoRA of the same rank on policy and value model."""
    folder = Path(settings["folder"], "model")
    torch.set_num_threads(settings["threads"])
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[settings["weights"]]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, padding_side="left")
    lora = {"r": LORA["rank"], "lora_alpha": LORA["alpha"], "target_modules": list(LORA["targets"])}
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    critic = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=dtype, trust_remote_code=False
    )
    critic = get_peft_model(critic, LoraConfig(**lora, task_type="SEQ_CLS", modules_to_save=["score"]))
    micro_batch = settings.get("micro_batch", ANSWERS)
    args = PPOConfig(
        output_dir=str(folder.parent / "trl"),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=ANSWERS // micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=micro_batch,
        total_episodes=ANSWERS * settings["updates"],
        response_length=LONGEST,
        stop_token=None,
        temperature=1.0,
        num_sample_generations=0,
        learning_rate=RATE,
        bf16=settings["dtype"] == "bf16",
        use_cpu=True,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    rows = json.loads(Path(settings["folder"], "rows.json").read_text(encoding="utf-8"))
    asked = [row["question_ids"] for row in rows[: PROMPTS * settings["updates"]]]
    data = Dataset.from_list([{"input_ids": ids} for ids in asked for _ in range(ANSWERS // PROMPTS)])
    watch = Stopwatch()
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=NoReward(),
        train_dataset=data,
        value_model=critic,
        eval_dataset=data,
        peft_config=LoraConfig(**lora, task_type="CAUSAL_LM"),
        callbacks=[watch],
    )
    trainer.train()
    return {"seconds": watch.seconds, "length": float(LONGEST)}
