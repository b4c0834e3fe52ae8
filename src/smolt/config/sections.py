"""A study from its file: every section becomes a whole recipe, with what it takes over from the study and others."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from smolt.config.blocks import Block
from smolt.config.complaints import Complaint, Misplaced, Origin, complaints_about, nearest, refusal, suggestion
from smolt.config.study_recipe import MADE, STAGE_RECIPES, BestOfNRecipe, Section, StudyRecipe
from smolt.config.yaml_reader import KeyPath
from smolt.errors import UserError

MADE_FROM_NOTHING = ("pretrain", "problems")
POLICIES = ("pretrain", "sft", "dpo", "kto", "decide", "ppo", "grpo", "online_dpo", "distill")
INHERITED = ("seed", "lora", "data", "dev")
TAKEN = {"base": "the model before all stages", "shipped": "the data that comes with smolt"}
PATH_FIELDS = ("path", "reward_model", "decision")
_REFERENCE = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9_.\-]*)\}")
_MADE_BY = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9_.\-]*)\}/+([^/]+)(?:/.*)?")
_RecipeT = TypeVar("_RecipeT", bound=Block)


def section_references(recipe: BaseModel) -> set[str]:
    """The names of the study sections a stage recipe needs: `{name}` in its paths, and `budget.like`."""
    dump = recipe.model_dump()
    like = (dump.get("budget") or {}).get("like")
    found = {name for text in _paths_in(dump) for name in _REFERENCE.findall(text)}
    return found | ({like} if like else set())


def _not_made(block: BaseModel, stages: Mapping[str, str]) -> list[str]:
    """What paths of a block name in a section's directory that the section, of that stage, does not make."""
    found = [
        (match[1], match[2], MADE[stages[match[1]]])
        for text in dict.fromkeys(_paths_in(block.model_dump()))
        if (match := _MADE_BY.fullmatch(text)) is not None and stages.get(match[1]) in MADE
    ]
    return [
        f"`{{{name}}}/{wanted}` is nothing that {name} makes" + suggestion(wanted, made)
        for name, wanted, made in found
        if wanted not in made
    ]


def _no_raters(block: BaseModel, stages: Mapping[str, str]) -> list[str]:
    """What a block takes for a reward model, and is the model of a section that makes a policy."""
    found = [
        match[1]
        for text in dict.fromkeys(_raters_in(block.model_dump()))
        if (match := _MADE_BY.fullmatch(text) or _REFERENCE.fullmatch(text)) is not None
    ]
    return [
        f"`{{{name}}}` is no reward model: its stage is {stages[name]}"
        for name in found
        if stages.get(name, "reward") != "reward"
    ]


def _raters_in(value: Any) -> list[str]:
    """The path of every reward model: a part of a reward, a member of an ensemble, best-of-n's."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in _raters_in(item)]
    if not isinstance(value, dict):
        return []
    several = (value.get("options") or {}).get("path", ()) if value.get("name") == "ensemble" else ()
    own = [value.get("path")] if value.get("name") == "model" else [value.get("reward_model")]
    found = [text for text in (*own, *(several if isinstance(several, list | tuple) else ())) if isinstance(text, str)]
    return [*found, *(text for item in value.values() for text in _raters_in(item))]


def with_directories(recipe: _RecipeT, directories: Mapping[str, Path]) -> _RecipeT:
    """The recipe with every `{section}` in its paths replaced by that section's directory.

    Args:
        recipe: a stage recipe of a study.
        directories: section name -> its run directory.

    Raises:
        UserError: a path names a section that has no directory.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1] not in directories:
            raise UserError(f"`{match[0]}` names no section; known: {', '.join(directories) or 'none'}")
        return str(directories[match[1]])

    def filled(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {inner: filled(inner, item) for inner, item in value.items()}
        if isinstance(value, list | tuple):
            return [filled(key, item) for item in value]
        return _REFERENCE.sub(replaced, value) if isinstance(value, str) and key in PATH_FIELDS else value

    return type(recipe).model_validate(filled("", recipe.model_dump()))


def _paths_in(value: Any, key: str = "") -> list[str]:
    """Every text under a key that holds a path."""
    if isinstance(value, dict):
        return [text for inner, item in value.items() for text in _paths_in(item, inner)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _paths_in(item, key)]
    return [value] if isinstance(value, str) and key in PATH_FIELDS else []


def expand_dotted(body: dict[str, Any], origin: Origin, at: KeyPath, keep_blocks: bool = False) -> dict[str, Any]:
    """`kl.coefficient: 0.05` as `kl: {coefficient: 0.05}`.

    Args:
        body: one block of a file.
        origin: learns where the moved fields were written.
        at: path of the block.
        keep_blocks: leave dotted keys alone that hold a block (at the top of a study they are section names).

    Raises:
        Misplaced: the same field is given twice, dotted and not.
    """
    expanded: dict[str, Any] = {}
    for key, value in body.items():
        parts = key.split(".") if re.fullmatch(r"\w+(\.\w+)+", key) else [key]
        if keep_blocks and isinstance(value, dict):
            parts = [key]
        if len(parts) > 1:
            origin.moved[(*at, *parts)] = (*at, key)
        target = expanded
        for part in parts[:-1]:
            inner = {} if target.get(part) is None else target[part]
            if not isinstance(inner, dict):
                raise Misplaced((*at, key), f"{part} is given twice; write it as one block")
            target[part] = target = dict(inner)
        if parts[-1] in target:
            raise Misplaced((*at, key), "given twice; remove one")
        target[parts[-1]] = value
    return expanded


def expand_study(data: dict[str, Any], origin: Origin) -> dict[str, Any]:
    """`expand_dotted` at the top of a study and inside each of its sections.

    Raises:
        Misplaced: a field is given twice.
    """
    data = expand_dotted(data, origin, (), keep_blocks=True)
    return {
        name: expand_dotted(value, origin, (name,)) if isinstance(value, dict) and _is_section(name, value) else value
        for name, value in data.items()
    }


def read_study(data: dict[str, Any], origin: Origin) -> StudyRecipe:
    """Build a study from plain data, its dotted fields in their blocks.

    Raises:
        UserError: with every mistake found, each at its line.
    """
    own = {name: value for name, value in data.items() if not _is_section(name, value)}
    if "sections" in own:
        raise refusal(origin, [Complaint(("sections",), "write each section at the top, under its own name")])
    study, wrong = None, list[Complaint]()
    try:
        study = StudyRecipe.model_validate(own)
    except ValidationError as error:
        wrong = complaints_about(error, StudyRecipe)
    bodies = {name: value or {} for name, value in data.items() if name not in own}
    sections, complaints = _sections(bodies, own, origin)
    taken_over = {complaint.path[0] for complaint in wrong if complaint.path}
    complaints = [one for one in complaints if not _is_the_studys(one, taken_over, bodies, origin)]
    if not bodies and not wrong:
        complaints = [Complaint((), f"a study needs a section: {', '.join(STAGE_RECIPES)}")]
    if study is None or complaints:
        raise refusal(origin, [*wrong, *complaints])
    settings = study.study
    sections = {name: _as_long(section, settings.sampling.max_tokens) for name, section in sections.items()}
    loose = _loose_ends(own, study, sections)
    if loose:
        raise refusal(origin, loose)
    if "baseline" not in settings.model_fields_set and "sft" not in sections:
        settings = settings.model_copy(update={"baseline": "base"})
    return study.model_copy(update={"sections": tuple(sections.values()), "study": settings})


def _is_section(name: str, value: object) -> bool:
    """Whether a top-level entry of a study is a section and not a field of the study."""
    return name not in StudyRecipe.model_fields and (name in STAGE_RECIPES or isinstance(value, dict))


def _section_complaint(name: str, body: Any) -> Complaint | None:
    """Why a section is none: no stage, a stage that does not exist, or a name that means something else."""
    if not isinstance(body, dict):
        return Complaint((name,), "must be a block of fields")
    if name in TAKEN:
        return Complaint((name,), f"{name} is the name of {TAKEN[name]}; choose another name")
    stage = body.get("stage", name)
    if isinstance(stage, str) and stage in STAGE_RECIPES:
        return None
    if "stage" in body:
        return Complaint((name, "stage"), "unknown stage" + suggestion(str(stage), STAGE_RECIPES))
    close = nearest(name, [*STAGE_RECIPES, *StudyRecipe.model_fields])
    hint = f'did you mean "{close}"?' if close else f"known: {', '.join(STAGE_RECIPES)};"
    return Complaint((name,), f"unknown section; {hint} a section with a name of its own says its `stage:`")


def _is_the_studys(complaint: Complaint, wrong: set[Any], bodies: Mapping[str, Any], origin: Origin) -> bool:
    """Whether a section's complaint is about a field it takes over, and which is wrong in the study already."""
    name, field = (*complaint.path, None)[:2]
    return field in wrong and (field not in bodies[str(name)] or origin.written(complaint.path) != complaint.path)


def _sections(
    bodies: Mapping[str, Any], study: dict[str, Any], origin: Origin
) -> tuple[dict[str, Section], list[Complaint]]:
    """The sections that are sound, and all complaints about the others."""
    sections: dict[str, Section] = {}
    complaints: list[Complaint] = []
    above: dict[str, str] = {}
    for name, body in bodies.items():
        no_section = _section_complaint(name, body)
        if no_section is not None:
            complaints.append(no_section)
            above[name] = POLICIES[0]  # who starts from it is not to blame
            continue
        found = _section(name, body, study, above, origin)
        if isinstance(found, Section):
            sections[name] = found
        else:
            complaints += found
        above[name] = body.get("stage", name)
    return sections, complaints


def _section(
    name: str, body: dict[str, Any], study: dict[str, Any], above: dict[str, str], origin: Origin
) -> Section | list[Complaint]:
    """One section as a whole recipe, or all that is wrong with it."""
    body, wrong = dict(body), list[Complaint]()
    stage = body.get("stage", name)
    recipe_class = STAGE_RECIPES[stage]
    if "name" in body:
        wrong.append(Complaint((name, "name"), "a section is named by its key; remove this"))
    given = body.pop("from", None)
    try:
        source = _source(name, stage, given, body.get("model"), above, bool(body.get("endpoint")))
    except Misplaced as error:
        wrong.append(error.complaint)
        source = "base" if stage in MADE_FROM_NOTHING else ""  # from somewhere, so that no model is missing
    for field in INHERITED:
        if field in recipe_class.model_fields and field in study and field not in body:
            body[field] = study[field]
            origin.moved[(name, field)] = (field,)
    if "model" in recipe_class.model_fields and not body.get("endpoint"):
        body["model"] = _model(name, stage, body.get("model"), study.get("model"), origin)
        if source != "base" and isinstance(body["model"], dict):
            body["model"] = {**body["model"], "path": f"{{{source}}}/model"}
    reward_model = body.get("reward_model")
    if isinstance(reward_model, str) and reward_model in above:
        body["reward_model"] = f"{{{reward_model}}}/model"
    try:
        recipe = recipe_class.model_validate({**body, "stage": stage, "name": name})
    except ValidationError as error:
        return wrong + complaints_about(error, recipe_class, (name,))
    known = ", ".join(above) or "none"
    wrong += [
        Complaint((name,), f"refers to the section {unknown}, which does not stand above it; above: {known}")
        for unknown in sorted(section_references(recipe) - set(above))
    ]
    wrong += [Complaint((name,), fault) for fault in (*_not_made(recipe, above), *_no_raters(recipe, above))]
    return wrong or Section.model_validate({"name": name, "source": source, "recipe": recipe})


def _as_long(section: Section, longest: int) -> Section:
    """An arm that only answers, allowed as many tokens as every other arm, unless it says how many itself."""
    recipe = section.recipe
    if not isinstance(recipe, BestOfNRecipe) or "max_tokens" in recipe.sampling.model_fields_set:
        return section
    sampling = recipe.sampling.model_copy(update={"max_tokens": longest})
    return section.model_copy(update={"recipe": recipe.model_copy(update={"sampling": sampling})})


def _model(name: str, stage: str, own: Any, shared: Any, origin: Origin) -> Any:
    """A section's model block over the study's (pretraining takes over only where to compute)."""
    own, shared = ({"path": block} if isinstance(block, str) else block for block in (own, shared))
    if not isinstance(own, dict | None) or not isinstance(shared, dict | None):
        return own
    taken = {field: value for field, value in (shared or {}).items() if field not in (own or {})}
    if stage == "pretrain":
        taken = {field: value for field, value in taken.items() if field not in ("path", "window", "style")}
    for field in taken:
        origin.moved[(name, "model", field)] = ("model", field)
    return {**taken, **(own or {})}


def _source(name: str, stage: str, given: Any, model: Any, above: dict[str, str], elsewhere: bool) -> str:
    """The section whose model this one starts from: as given, else sft, else pretrain, else the study's base model.

    Raises:
        Misplaced: there is no such section above, or it makes no policy.
    """
    place = (name, "from")
    own_path = isinstance(model, str) or (isinstance(model, dict) and "path" in model)
    if stage in MADE_FROM_NOTHING or own_path or elsewhere:
        if given is not None:
            without = "the model behind endpoint answers" if elsewhere else f"{stage} starts from nothing"
            reason = "it gives its own model.path" if own_path else without
            raise Misplaced(place, f"{reason}; remove `from`")
        return "base"
    if given is None:
        usual = ("pretrain",) if stage == "sft" else ("sft", "pretrain")
        given = next((known for known in usual if known in above), "base")
    if not isinstance(given, str) or given not in ("base", *above):
        raise Misplaced(place, "must be base or a section above" + suggestion(str(given), ["base", *above]))
    if given != "base" and above[given] not in POLICIES:
        raise Misplaced(place, f"{given} makes no policy to start from (its stage is {above[given]})")
    return given


def _loose_ends(own: dict[str, Any], study: StudyRecipe, sections: dict[str, Section]) -> list[Complaint]:
    """Fields of the study that nobody would honour, and a baseline that is no arm."""
    complaints = []
    for field in ("lora", "data", "dev"):
        users = [section for section in sections.values() if field in type(section.recipe).model_fields]
        if own.get(field) is not None and not users:
            complaints.append(Complaint((field,), "no section uses it; remove it"))
    for unknown in sorted(section_references(study.study) - set(sections)):
        message = f"refers to {unknown}, which is no section" + suggestion(unknown, sections)
        complaints.append(Complaint(("study",), message))
    stages = {name: section.recipe.stage for name, section in sections.items()}
    faults = (*_not_made(study.study, stages), *_no_raters(study.study, stages))
    complaints += [Complaint(("study",), fault) for fault in faults]
    longest = study.study.sampling.max_tokens
    complaints += [
        Complaint(
            (name, "sampling", "max_tokens"),
            f"the other arms are measured at {longest} (study.sampling.max_tokens), and answers of another limit "
            "cannot be compared with theirs; remove this",
        )
        for name, section in sections.items()
        if isinstance(section.recipe, BestOfNRecipe) and section.recipe.sampling.max_tokens != longest
    ]
    arms = ["base", *(name for name, section in sections.items() if section.recipe.stage in study.study.arms)]
    if "baseline" in study.study.model_fields_set and study.study.baseline not in arms:
        message = f"{study.study.baseline!r} is no arm" + suggestion(study.study.baseline, arms)
        complaints.append(Complaint(("study", "baseline"), message))
    return complaints
