"""Every page says what is so: links, tables, versions and the generated reference."""

import inspect
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from packaging.version import Version

from smolt.cli import outcomes
from smolt.config import shipped_recipes
from smolt.config.blocks import REWARDS
from smolt.config.reference import reference_page, stage_fields
from smolt.data import Answer, Question
from smolt.data.formats import FORMATS
from smolt.data.numbers import extract
from smolt.errors import DirectoryInUse, SelfCheckError, UserError
from smolt.processes.lifeline import ProcessLost
from smolt.rewards.constraints import CHECKS, CONSTRAINT_RULE, COUNTS
from smolt.rewards.refusals import REFUSAL_RULE
from smolt.rewards.shorthand import RULES
from smolt.rewards.stated import confidence
from smolt.rewards.tone import EMPATHY_RULE
from tests.docs.workshop import PAGES, ROOT, named, table

DOCS = ROOT / "docs"
KINDS = {"D": "demonstrations", "P": "preferences", "F": "feedback", "C": "decisions", "Q": "questions", "T": "text"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files exist; an anchor is a heading of its page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file) if file else page
        assert place.exists(), f"{named(page)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{named(page)}: {target}"


def test_every_page_that_a_text_names_is_there() -> None:
    """Paths under docs in pages, docstrings, messages, tests and the Makefile."""
    sources = [path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    for path in [*PAGES, *sources, ROOT / "Makefile"]:
        found = re.findall(r"\bdocs/[\w/.-]+\.(?:md|png)", path.read_text(encoding="utf-8"))
        assert not [name for name in found if not (ROOT / name).is_file()], path


def test_the_index_names_every_page() -> None:
    """docs/README.md links each page of docs, and says its folder's purpose."""
    index = DOCS / "README.md"
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", index.read_text(encoding="utf-8"))}
    found = [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    pages = {page.relative_to(DOCS).as_posix() for page in found} - {"README.md"}
    assert pages <= linked | {f"decisions/{page.name}" for page in (DOCS / "decisions").iterdir()}
    assert "decisions" in linked


def test_the_changelog_begins_with_the_coming_version() -> None:
    """The one that pyproject.toml counts towards; what is installed has the number of a commit behind it."""
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    coming = Version(settings["tool"]["setuptools_scm"]["fallback_version"])
    assert newest is not None and newest[1] == coming.base_version


def test_the_recipe_reference_is_generated() -> None:
    """`smolt recipe fields > docs/reference/recipes-reference.md` writes it anew."""
    assert (DOCS / "reference" / "recipes-reference.md").read_text(encoding="utf-8").rstrip(
        "\n"
    ) == reference_page().rstrip("\n")


def test_fields_of_a_stage_show_its_own_defaults() -> None:
    """DPO's learning rate is 5e-6 where the block's own is 1e-5; PPO makes 4 passes where the block makes 1."""
    dpo = {field.name: field.default for field in stage_fields("dpo")}
    ppo = {field.name: field.default for field in stage_fields("ppo")}
    assert (dpo["optim.lr"], dpo["model.path"], dpo["lora"]) == ("5e-06", "required", "null")
    assert (ppo["inner.epochs"], ppo["budget.updates"]) == ("4", "100")
    with pytest.raises(UserError, match='did you mean "sft"'):
        stage_fields("stf")


def test_the_formats_are_those_that_are_read() -> None:
    """Same names, columns and kinds, in the order of detection."""
    rows = [(name, columns, [KINDS[kind] for kind in kinds.split()]) for name, columns, kinds, _ in _formats()]
    assert rows == [(form.name, form.columns(), list(form.kinds)) for form in FORMATS]


def _formats() -> list[list[str]]:
    return table(DOCS / "reference" / "data.md", "format")


def test_the_rewards_are_those_that_are_built() -> None:
    """Every rule with all its options, and what is no rule."""
    rows = {name: options for name, _, options, _ in table(DOCS / "reference" / "rewards.md", "name")}
    assert set(rows) == set(REWARDS)
    for name, rule in RULES.items():
        assert re.findall(r"`(\w+)`", f"`{rows[name]}`".replace("``", "`")) == list(inspect.signature(rule).parameters)


def test_the_confidence_scores_as_the_page_says() -> None:
    seven = Question((), "#### 7")
    for said, right, stated, value in table(DOCS / "reference" / "rewards.md", "says of 3 + 4"):
        (score,) = confidence()([seven], [Answer(said.replace("`, `", "\n"), 9, True)])
        assert score.value == pytest.approx(float(value.replace("−", "-")))
        assert (score.components["correct"], score.components["confidence"]) == (float(right), float(stated))


def test_the_extractor_reads_what_the_page_says() -> None:
    for answer, number, way in table(DOCS / "reference" / "rewards.md", "answer"):
        found = extract(answer)
        assert (found.value, found.way) == (Fraction(number) if number else None, way)


def test_the_exit_codes_are_the_programs() -> None:
    """The codes that the command line and the errors hold, and 0."""
    codes = {outcomes.DONE, outcomes.WRONG_INPUT, outcomes.OUT_OF_MEMORY, outcomes.DISK}
    codes |= {outcomes.INTERRUPTED, outcomes.TERMINATED, UserError.exit_code, SelfCheckError.exit_code}
    assert {int(row[0]) for row in table(DOCS / "reference" / "command-line.md", "exit code")} == codes | {
        DirectoryInUse.exit_code,
        ProcessLost.exit_code,
    }


def test_the_page_lists_the_shipped_recipes() -> None:
    assert {row[0] for row in table(DOCS / "reference" / "recipes.md", "recipe")} == set(shipped_recipes())


def test_the_checks_of_constraints_are_those_there_are() -> None:
    """Same names, in the order they are defined."""
    page = DOCS / "guides" / "scenarios.md"
    assert [row[0] for row in table(page, "check")] == [*COUNTS, *CHECKS]
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^`([a-z]+-\d)`: ", text, re.MULTILINE) == [REFUSAL_RULE, EMPATHY_RULE, CONSTRAINT_RULE]


def test_how_it_works_names_files_that_are_there() -> None:
    """Each path of the page lies in src/smolt, each room is in its table, and the functions it names are there."""
    text = (DOCS / "why" / "how-it-works.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "smolt"
    paths = re.findall(r"`((?!src/)[a-z_]+(?:/[a-z_]+)+(?:\.py)?|[a-z_]+\.py)`", text)
    assert len(paths) > 70
    assert not [name for name in paths if not (package / name).exists()]
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    shown = table(DOCS / "why" / "how-it-works.md", "floor")
    assert rooms <= {name.strip(" `") for row in shown for name in row[1].split(",")}
    for file, function in (("models/sampling/draws.py", "draw_tokens"), ("training/stage.py", "_state")):
        assert f"def {function}(" in (package / file).read_text(encoding="utf-8")
        assert f"`{function}`" in text
