"""`smolt judge`: preference labels for pairs, and the judge's audit card beside them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolt.config import Data, Judging
from smolt.data import load, write_preferences, write_rows
from smolt.data.files import read
from smolt.data.nouns import as_messages
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.preferences.judges.audit import Card, audit
from smolt.preferences.judges.both_orders import Judge, Judgement, Pair, as_preferences, judge_pairs
from smolt.preferences.judges.card import figures, panel
from smolt.preferences.judges.opening import open_judge
from smolt.preferences.judges.tricks import try_tricks
from smolt.report.markdown import panel_section
from smolt.report.panels import Panel, write_panels
from smolt.report.pictures.plots import Pictures
from smolt.rewards.learned import learned_reward
from smolt.rewards.llm_judge.cache import VERDICTS, VerdictCache
from smolt.runs import Run, atomic_write, jsontext

PREFERENCES = "preferences.jsonl"
CARD = "judge-card"
CHANCE = 0.5
"""How often a coin, thrown for each order, prefers the same answer twice."""

WRITERS = ("chosen_model", "rejected_model")

Tell = Callable[[str, int, int], None]


def judge_file(
    data: Data,
    settings: Judging,
    *,
    out: Path,
    unlabelled: bool = False,
    cache: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    fresh: bool = False,
    tell: Tell = lambda what, done, total: None,
) -> dict[str, Any]:
    """Label a file of pairs.

    OUT gets preferences.jsonl (decided pairs, with the judge's probability as their weight), verdicts.jsonl (what was
    said of every pair), judge-card.json and judge-card.md. Every opinion is kept in OUT/verdicts.sqlite as it comes:
    stopped or killed, the same command goes on after the last one.

    Args:
        data: preferences; which answer they call better is what the judge is compared with.
        settings: who judges, and how.
        out: the directory.
        unlabelled: which answer the data call better means nothing.
        cache: another file for opinions, for example one shared by several directories.
        device: of a judge on this machine.
        dtype: likewise.
        fresh: set what lies at `out` aside.
        tell: hears what is done, how much, of how much.

    Returns:
        status ("complete", "already complete", or "incomplete" when replies are missing), and the card's figures.

    Raises:
        UserError: data, judge or directory are wrong, or the judge is gone.
    """
    pairs, digest = read_pairs(data, unlabelled)
    precision = choose_precision(device, dtype)
    judge = open_judge(settings, precision, lambda part: learned_reward(part, precision))
    recipe: dict[str, Any] = {
        "stage": "judge",
        "judge": settings.model_dump(mode="json", exclude={"gate"}),  # it changes no label
        "data": data.model_dump(mode="json"),
    }
    recipe |= {"unlabelled": unlabelled}
    manifest = {"stage": "judge", "recipe": recipe, "data": digest, "model": judge.identity, "renderer": None}
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.result is not None:
            return {**run.result, "status": "already complete"}
        with VerdictCache(cache or out / VERDICTS) as store:
            facts = label(judge, pairs, settings, store, out, tell)
        if facts["unreached"]:
            return {**facts, "status": "incomplete"}
        run.complete(facts)
    return {**facts, "status": "complete"}


def label(
    judge: Judge,
    pairs: Sequence[Pair],
    settings: Judging,
    cache: VerdictCache,
    folder: Path,
    tell: Tell = lambda what, done, total: None,
    name: str = "judge",
) -> dict[str, Any]:
    """Judge pairs, try the judge, and write labels, verdicts and card into a folder.

    Args:
        judge: who judges.
        pairs: what is judged.
        settings: how.
        cache: what is known already.
        folder: where the files go.
        tell: hears what is done, how much, of how much; may raise to end it there.
        name: of the panel, unique in a report.

    Returns:
        The card's figures, and `preferences`, how many were written.
    """
    judgements = judge_pairs(
        judge,
        pairs,
        cache,
        tau=settings.tau,
        matched=settings.matched,
        tell=lambda done, total: tell("showings", done, total),
    )
    trials = try_tricks(
        judge,
        pairs,
        judgements,
        cache,
        count=settings.probes,
        tau=settings.tau,
        tell=lambda done, total: tell("probes", done, total),
    )
    card = audit(judge, pairs, judgements, trials)
    preferences = as_preferences(pairs, judgements, settings.inconsistent == "drop")
    facts = {**figures(card), "preferences": len(preferences)}
    if settings.remote is not None and settings.remote.price is not None:
        facts["cost"] = sum(n * price for n, price in zip(card.tokens, settings.remote.price, strict=True)) / 1e6
    found = panel(card, pairs, judgements, name)
    write_panels(folder, [found])
    write_rows(folder / "verdicts.jsonl", [verdict_row(*row) for row in zip(pairs, judgements, strict=True)])
    jsontext.write(folder / f"{CARD}.json", facts)
    atomic_write(folder / f"{CARD}.md", card_text(found))
    if settings.gate and judge.kind in ("local", "endpoint"):
        _refuse_chance(card, folder)
    write_preferences(folder / PREFERENCES, preferences)
    return facts


def _refuse_chance(card: Card, folder: Path) -> None:
    """A judge whose verdicts may as well be a coin's gives no labels; its card and verdicts are kept."""
    consistency = card.measures.get("swap_consistency")
    if consistency is not None and consistency.low is not None and consistency.low <= CHANCE:
        raise UserError(
            f"{folder}: no labels written: {consistency.value:.0%} of {consistency.n:,} verdicts stay the same when "
            f"the answers change places, and the interval (from {consistency.low:.0%}) is not above a coin's "
            f"{CHANCE:.0%}; judge more pairs, take another judge, or keep such labels with gate: false (--no-gate). "
            "Card and verdicts are there"
        )


def card_text(found: Panel) -> str:
    """The card as Markdown; a judge that is unreliable says so above all else."""
    banner = "> **Unreliable.** Do not train on these labels without reading on.\n\n" if found.warnings else ""
    return f"{banner}{panel_section(found, Pictures())}\n"


def verdict_row(pair: Pair, judgement: Judgement) -> dict[str, Any]:
    """All that was said of one pair."""
    return {
        "id": pair.question.id,
        "prompt": as_messages(pair.question.context),
        "outcome": judgement.outcome,
        "probability": judgement.probability,
        "margin": judgement.margin,
        "consistent": judgement.consistent if judgement.judged else None,
        "first": pair.first,
        "second": pair.second,
        "label": pair.gold,
        "original": asdict(judgement.original),
        "swapped": asdict(judgement.swapped),
    }


def read_pairs(data: Data, unlabelled: bool = False) -> tuple[list[Pair], str]:
    """Preferences as pairs, and the hash of the data; columns chosen_model and rejected_model name the writers.

    Raises:
        UserError: the data hold no preferences.
    """
    preferences = load(data, "preferences")
    questions = load(data, "questions").records
    if len(questions) != len(preferences.records):
        raise UserError(f"{preferences.path}: has rows that are no pair; keep pairs only")
    writers = _writers(data)
    pairs = [
        Pair(
            question,
            preference.chosen,
            preference.rejected,
            None if unlabelled else preference.weight,
            writers.get((preference.chosen, preference.rejected)),
        )
        for question, preference in zip(questions, preferences.records, strict=True)
    ]
    return pairs, preferences.sha256


def _writers(data: Data) -> dict[tuple[str, str], tuple[str, str]]:
    """The models that wrote the answers, by the answers' texts, where the rows name both."""
    found = {}
    for line in read(data.path, data.split).lines:
        row = line.row or {}
        names = [row.get(column) for column in WRITERS]
        if all(isinstance(name, str) for name in names):
            found[str(row.get("chosen")), str(row.get("rejected"))] = (str(names[0]), str(names[1]))
    return found
