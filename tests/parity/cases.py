"""What the parity goldens are captured with: the peers' release, and the settings of each case."""

from typing import Any

TRL_VERSION = "1.16.0"

Case = dict[str, Any]

# Shared by every TRL trainer: fp32, on the CPU, no dropout, one process, nothing recomputed, nothing reported.
TRAINER: Case = {
    "bf16": False,
    "fp16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "use_liger_kernel": False,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 0,
}
REWARD_CASES: dict[str, Case] = {
    "plain": {"center_rewards_coefficient": None},
    "centered": {"center_rewards_coefficient": 0.01},
    "margin": {"center_rewards_coefficient": None, "margin": 0.5},
}
# `sigmoid` of TRL 1.16.0 ignores label_smoothing. Its `aot` is the smoothed sigmoid on sorted log-ratios, so
# that a batch of ONE pair is conservative DPO: the smoothed case is captured pair by pair and averaged.
DPO_SHARED: Case = {
    "f_divergence_type": "reverse_kl",
    "ld_alpha": None,
    "use_weighting": False,
    "precompute_ref_log_probs": False,
    "max_length": None,
    "loss_weights": None,
}
DPO_CASES: dict[str, Case] = {
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.1, "label_smoothing": 0.0},
    "sigmoid_beta_half": {"loss_type": ["sigmoid"], "beta": 0.5, "label_smoothing": 0.0},
    "smoothed": {"loss_type": ["aot"], "beta": 0.5, "label_smoothing": 0.2},
    "ipo": {"loss_type": ["ipo"], "beta": 0.5, "label_smoothing": 0.0},
}
CPO_SHARED: Case = {"max_length": 64, "alpha": 0.0, "label_smoothing": 0.0}
CPO_CASES: dict[str, Case] = {
    "cpo": {"loss_type": "sigmoid", "beta": 0.1, "cpo_alpha": 1.0},
    "cpo_smoothed": {"loss_type": "sigmoid", "beta": 0.5, "cpo_alpha": 0.5, "label_smoothing": 0.2},
    "simpo": {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
    "cpo_simpo": {"loss_type": "simpo", "beta": 0.5, "simpo_gamma": 0.2, "cpo_alpha": 1.0},
}
# The NLL of TRL's ORPO counts the tokens of the prompt, that of the paper (and ours) does not. With a context of one
# token both are the same; on the usual rows the odds-ratio term is captured alone.
ORPO_CASES: dict[str, Case] = {
    "one_token_contexts": {"beta": 0.1, "nll": True},
    "odds_ratio_alone": {"beta": 0.5, "nll": False},
}
KTO_SHARED: Case = {"loss_type": "kto", "precompute_ref_log_probs": False, "max_length": None}
KTO_CASES: dict[str, Case] = {
    "even": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    "weighted": {"beta": 0.5, "desirable_weight": 1.25, "undesirable_weight": 0.5},
}
# TRL's GKD has a temperature only where it samples: its loss takes 1.
GKD_CASES: dict[str, Case] = {
    "forward": {"beta": 0.0},
    "near_forward": {"beta": 0.1},
    "half": {"beta": 0.5},
    "reverse": {"beta": 1.0},
}
# The second answer to the second question is the better one. TRL's `ipo` takes sums where DPO's takes means: not taken.
ONLINE_DPO_REWARDS = ((1.0, 0.0), (0.25, 0.5), (2.0, -1.0))
ONLINE_DPO_SHARED: Case = {"loss_type": "sigmoid", "temperature": 1.0, "missing_eos_penalty": None, "max_length": 64}
ONLINE_DPO_CASES: dict[str, Case] = {"beta_tenth": {"beta": 0.1}, "beta_half": {"beta": 0.5}}
GRPO_SHARED: Case = {
    "num_generations": 4,
    "max_completion_length": 8,
    "temperature": 1.0,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "delta": None,
    "beta": 0.0,
    "use_bias_correction_kl": False,
    "importance_sampling_level": "token",
    "loss_type": "dapo",
    "scale_rewards": "none",
    "mask_truncated_completions": False,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "entropy_coef": 0.0,
    "use_vllm": False,
}
# "on_policy" (ours): no old log-probabilities are given, so that the ratio is 1 and only its gradient remains.
GRPO_CASES: dict[str, Case] = {
    "token_mean": {},
    "answer_mean": {"loss_type": "grpo"},
    "constant_length": {"loss_type": "dr_grpo"},
    "kl_plain": {"beta": 0.04, "use_bias_correction_kl": False},
    "kl_weighted_on_policy": {"beta": 0.04, "use_bias_correction_kl": True, "on_policy": True},
    "sequence_ratio": {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "epsilon": 3e-3,
        "epsilon_high": 4e-3,
    },
    # TRL clips CISPO's ratio from above only, at epsilon_high itself (not 1 + epsilon_high).
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "temperature": {"temperature": 0.7},
    "entropy": {"entropy_coef": 0.3},
}
