"""What audits found in a study's sections, what these found on their way, gold rewards, suites; by the first seed."""

from smolt.panels import Panel, read_panel, read_panels
from smolt.recording.learning import gold_panel
from smolt.recording.places import Places
from smolt.suites import suite_panels


def panels_of(places: Places) -> list[Panel]:
    """Every finding of the study, in the order of its sections."""
    seed = places.recipe.study.seeds[0]
    folders = places.folders(seed)
    found = [panel for folder in folders.values() for panel in read_panels(folder)]
    for name, folder in folders.items():
        if (folder / "result.json").is_file():
            found += [read_panel(panel) for panel in places.result(name, seed).get("panels", [])]
    gold = gold_panel(places, seed)
    found += [] if gold is None else [gold]
    suites = places.settings(seed).suites
    if suites is not None:
        found += suite_panels(suites, places.arms(), places.recipe.study.baseline, places.answers)
    return found
