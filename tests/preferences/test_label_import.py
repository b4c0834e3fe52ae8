"""Labels of other tools: what their prompts are read as."""

import json
from pathlib import Path

from smolt.data import Turn
from smolt.preferences.people import LabelStore
from smolt.preferences.people.importing import import_labels, read_labels


def test_a_dialogue_of_human_and_assistant_is_turns_in_both_forms(tmp_path: Path) -> None:
    """One pair of HH, of one annotator as a choice and of another as preferences: one pair, of turns without marks."""
    store = LabelStore(tmp_path / "labels.sqlite")
    prompt = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:"
    chosen, plain = tmp_path / "chosen.jsonl", tmp_path / "plain.jsonl"
    chosen.write_text(json.dumps({"prompt": prompt, "first": " Yes.", "second": " No.", "choice": "first"}))
    plain.write_text(json.dumps({"prompt": prompt, "chosen": " Yes.", "rejected": " No."}))
    for path, name in ((chosen, "ann"), (plain, "bob")):
        import_labels(store, read_labels(str(path), name))
    (pair,) = store.pairs().values()
    assert pair.context == (Turn("user", "Hi."), Turn("assistant", "Hello."), Turn("user", "Tea?"))
    assert {getattr(pair, label.choice) for label in store.labels()} == {"Yes."} and len(store.labels()) == 2
