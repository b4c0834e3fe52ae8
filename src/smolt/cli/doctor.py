"""`smolt doctor`: the machine, and whether a recipe's model and data can be used, before hours are spent."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from smolt.cli.outcomes import Outcome
from smolt.cli.train import Overrides
from smolt.errors import UserError

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "pydantic")
KINDS = {
    "sft": "demonstrations",
    "reward": "preferences",
    "dpo": "preferences",
    "kto": "feedback",
    "decide": "decisions",
    "ppo": "questions",
    "grpo": "questions",
    "online_dpo": "questions",
    "distill": "questions",
    "pairs": "questions",
    "answers": "questions",
    "pretrain": "text",
}
Subject = Annotated[str | None, typer.Argument(metavar="[RECIPE|MODEL]", help="What to check besides the machine.")]


def examined(subject: Subject = None, overrides: Overrides = None) -> Outcome:
    """What was found; problems make the exit code 2.

    Raises:
        UserError: the recipe itself is wrong.
    """
    from smolt.config import load_recipe

    recipe = load_recipe(subject, None, overrides or []) if subject is not None and _is_recipe(subject) else None
    facts: dict[str, Any] = {"machine": machine()}
    checks = list(_checks(subject, recipe)) if subject is not None else []
    if checks:
        facts["checks"] = checks
    facts["ok"] = all(check["ok"] for check in checks)
    problems_last = sorted(checks, key=lambda check: not check["ok"])  # a terminal shows the end
    lines = [f"{name}: {value}" for name, value in facts["machine"].items()]
    lines += [f"{'ok' if check['ok'] else 'PROBLEM'}: {check['what']}: {check['found']}" for check in problems_last]
    words = "\n".join(lines)
    return Outcome(facts, words, 0 if facts["ok"] else UserError.exit_code)


def machine() -> dict[str, Any]:
    """Python, packages, cores, threads, memory, disk and device of this machine; sizes in GiB."""
    import torch

    from smolt import __version__
    from smolt.training.memory import system as here

    versions = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "smolt": __version__,
        **versions,
        "cores": len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        **({} if (free := here.free_memory()) is None else {"memory_free_gib": round(free / GIB, 1)}),
        "disk_free_gib": round(shutil.disk_usage(".").free / GIB, 1),
        "device": "cpu",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"device": f"cuda ({card.name})", "device_memory_gib": round(card.total_memory / GIB, 1)}
        found["bf16"] = torch.cuda.is_bf16_supported()
    elif torch.backends.mps.is_available():
        found["device"] = "mps"
    return found | _speed()


def _speed() -> dict[str, Any]:
    """GFLOP/s of a usual block by dtype and threads, and what a training with `auto` would choose for it."""
    from smolt.models.forward.precision import USUAL, available, choose, closeness, measure, thread_counts

    rates = measure(*USUAL, ("fp32", "bf16"), tuple(thread_counts(available())))
    dtype, threads = choose(rates)
    shown = ", ".join(f"{name} on {count} {rate:.0f}" for (name, count), rate in rates.items())
    auto = f"{dtype} on {threads} (width {USUAL[0]}, cpu): measured now, as a training measures at its start"
    return {"gflops_by_threads": shown, "auto": f"{auto}; {closeness(rates)}"}


def _version(package: str) -> str | None:
    from importlib import metadata  # 25 ms that `smolt --help` need not wait for

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _is_recipe(subject: str) -> bool:
    from smolt.config import shipped_recipes

    return subject in shipped_recipes() or Path(subject).suffix in (".yaml", ".yml")


def _checks(subject: str, recipe: Any) -> Iterator[dict[str, Any]]:
    """Each model and data block of the subject, a recipe or a model, looked at once."""
    from smolt.config import Model, PPORecipe, StudyRecipe, make_block
    from smolt.rewards.shorthand import reward_faults

    if recipe is None:
        yield _check_model(make_block(Model, path=subject))
        return
    yield {"what": "recipe", "ok": True, "found": f"a valid {recipe.stage} recipe"}
    for fault in reward_faults(recipe):
        yield {"what": "rewards", "ok": False, "found": fault}
    from smolt.study.duration import grounded
    from smolt.training.checks import hardly_moves, only_warmup

    stages = [section.recipe for section in recipe.sections] if isinstance(recipe, StudyRecipe) else [recipe]
    standing = grounded(recipe) if isinstance(recipe, StudyRecipe) else {}
    seen, sound, needs = set(), True, True
    for stage in stages:
        learns = hasattr(stage, "lora") and hasattr(stage, "budget")
        idle = only_warmup(stage, stage.budget.updates) if isinstance(stage, PPORecipe) else []
        for said in idle or (hardly_moves(stage) if learns else []):
            yield {"what": f"updates of {stage.name}", "ok": True, "found": said}
        for block, path, check in _blocks(stage):
            if path not in seen and "{" not in path:
                seen.add(path)
                found = check(block)
                sound = sound and found["ok"]
                yield found
        for found in _check_training(standing.get(stage.name, stage), sound):
            needs = needs and found["ok"]
            yield found
    for found in _check_exam(recipe, seen):
        needs = needs and found["ok"]
        yield found
    if sound and needs:
        yield from _check_time(recipe)


def _blocks(recipe: Any) -> Iterator[tuple[Any, str, Any]]:
    """The model and data blocks of a stage recipe, with what checks them."""
    values = dict(recipe)
    if values.get("model") is not None and recipe.stage != "pretrain":
        yield values["model"], values["model"].path, _check_model
    for name in ("data", "dev"):
        block = values.get(name)
        if block is not None and recipe.stage in KINDS:
            kind = KINDS[recipe.stage]
            yield block, block.path, lambda found, kind=kind: _check_data(found, kind)


def _check_model(model: Any) -> dict[str, Any]:
    from smolt.models.ground import open_ground

    try:
        ground = open_ground(model)
    except UserError as error:
        return {"what": f"model {model.path}", "ok": False, "found": str(error)}
    below = f" on {ground.located.base}" if ground.located.adapter else ""
    device, dtype = ground.precision.device, str(ground.precision.dtype).removeprefix("torch.")
    how = f"in {dtype}" if model.dtype != "auto" else "(a training measures which precision is fastest)"
    return {
        "what": f"model {model.path}{below}",
        "ok": True,
        "found": f"window {ground.window} tokens, {device} {how}",
    }


def _check_training(recipe: Any, sound: bool) -> Iterator[dict[str, Any]]:
    """What a stage's training leaves out, needs and can reach, where model and data are there already and sound."""
    from smolt.training.memory.outlook import foresee

    blocks = [getattr(recipe, name, None) for name in ("model", "data")]
    if any(block is None or "{" in getattr(block, "path", "{") for block in blocks):
        return
    try:
        foreseen = foresee(recipe)
    except UserError as error:
        if sound:  # else the model's or the data's own check has said it
            yield {"what": f"training of {recipe.name}", "ok": False, "found": str(error)}
        return
    if foreseen is None:
        return
    if foreseen.left_out:
        yield {"what": f"data of {recipe.name} in its window", "ok": True, "found": "; ".join(foreseen.left_out)}
    if foreseen.asked is not None and getattr(recipe, "server", None) is not None:
        yield _check_server(recipe, foreseen)
    if foreseen.asked is not None and hasattr(recipe, "reward"):
        yield from _check_reward(recipe.name, recipe.reward, foreseen.asked.questions)
    elif recipe.stage == "reward" and recipe.gate:
        yield from _check_gate(recipe, foreseen)
    outlook = foreseen.outlook
    if outlook is not None:
        estimated = "; ".join(part for part in (outlook.sentence.removeprefix("memory: "), outlook.recomputed) if part)
        found = ". ".join(sentence for sentence in (estimated, outlook.advice) if sentence)
        yield {
            "what": f"memory of {recipe.name}",
            "ok": not (outlook.hopeless and recipe.budget.refuse),
            "found": found,
        }


def _check_exam(recipe: Any, seen: set[str]) -> Iterator[dict[str, Any]]:
    """What a study's arms are measured on, and who rates their answers, which is needed after all trainings only."""
    from smolt.config import StudyRecipe
    from smolt.data import load

    if not isinstance(recipe, StudyRecipe):
        return
    test, decisions, reward = recipe.study.test, recipe.study.decisions, recipe.study.reward
    for block, kind in ((test, "questions"), (decisions, "decisions")):
        if block is not None and "{" not in block.path and block.path not in seen:
            found = _check_data(block, kind)
            yield found
            if block is test and reward is not None and found["ok"]:
                yield from _check_reward("study", reward, load(block, "questions").records)


def _check_reward(name: str, reward: Any, questions: Any) -> Iterator[dict[str, Any]]:
    """Parts of a reward that would end the training: a refused model, a rule or function that rates nothing."""
    from smolt.rewards.build import never_scored, partly_scored, why_useless
    from smolt.rewards.shorthand import reward_faults

    parts = [part for part in reward.parts if not any(reward_faults(part))]  # those have been said
    useless = [(part.name, reason) for part in parts if (reason := why_useless(part, questions[0])) is not None]
    for part_name, reason in useless:
        yield {"what": f"reward {part_name} of {name}", "ok": False, "found": reason}
    if silent := "" if useless else partly_scored(parts, questions):
        hopeless = never_scored(parts, questions)
        yield {
            "what": f"reward of {name}",
            "ok": hopeless is None,
            "found": (hopeless or silent).removeprefix("reward: "),
        }


def _check_server(recipe: Any, foreseen: Any) -> dict[str, Any]:
    """Whether the server that is to write the answers is there, and tells what learning needs."""
    from smolt.training.online.served import tried

    renderer = foreseen.ground.renderer
    (context,) = renderer.contexts([foreseen.asked.questions[0].context])
    try:
        found = tried(recipe.server, context, renderer.stop_ids, recipe.sampling.temperature)
    except UserError as error:
        return {"what": f"server of {recipe.name}", "ok": False, "found": str(error)}
    return {"what": f"server of {recipe.name}", "ok": True, "found": found}


def _check_gate(recipe: Any, foreseen: Any) -> Iterator[dict[str, Any]]:
    """Whether a reward model that is always right would pass: with few held-out pairs nothing can be shown."""
    from smolt.rewards.audit.figures import refusal_of_the_best
    from smolt.training.examination import held_out_pairs

    pairs = held_out_pairs(recipe, foreseen.ground, list(foreseen.items))
    reason = refusal_of_the_best([float(pair.lengths[0] - pair.lengths[1]) for pair in pairs])
    if reason is not None:
        found = f"no model can pass: one that is always right would be refused too ({reason}). "
        found += "Hold out more pairs (dev), or gate: false"
        yield {"what": f"gate of {recipe.name}", "ok": False, "found": found}


def _check_time(recipe: Any) -> Iterator[dict[str, Any]]:
    """How long each part will take here, and the whole, from speeds that are measured now."""
    from smolt.study.duration import Duration, foretell

    known = dict(foretell(recipe))
    if len(known) > 1:
        missing = [name for name, duration in known.items() if not duration.seconds]
        if len(missing) == len(known):
            known = {recipe.name: Duration(uncounted=["its own sections make its models and data"])}
        else:
            known[recipe.name] = Duration({"all": sum(duration.total for duration in known.values())}, missing)
    for name, duration in known.items():
        found = {"what": f"time of {name}", "ok": True, "found": duration.sentence}
        yield found if not duration.seconds else {**found, "seconds": duration.total}


def _check_data(data: Any, kind: Any) -> dict[str, Any]:
    from smolt.data import load

    try:
        found = load(data, kind)
    except UserError as error:
        return {"what": f"data {data.path}", "ok": False, "found": str(error)}
    return {"what": f"data {data.path}", "ok": True, "found": found.describe()}
