"""The same items of all files, in one order: nothing is paired by its place in a file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from smolt.errors import UserError
from smolt.evaluation.comparing.results import ArmResults, ItemResult

KEYS = ("key", "id", "question")
_SHOWN = 3


@dataclass(frozen=True)
class Aligned:
    """Items that every file has.

    Attributes:
        key: what they were aligned by.
        items: their keys, in the order of the first file.
        rows: for each file and item its rows, several where a question was answered several times.
        remarks: what a reader should know.
        left_out: items that not every file has.
    """

    key: str
    items: list[str]
    rows: list[list[list[ItemResult]]]
    remarks: list[str]
    left_out: int

    @property
    def single(self) -> bool:
        """Every item was answered once in every file."""
        return all(len(answers) == 1 for arm in self.rows for answers in arm)


def align(files: Sequence[ArmResults], intersect: bool) -> Aligned:
    """Pair the items of files by what identifies them.

    An item that occurs several times in a file was answered several times, where every item of the file occurs as
    often; else it is a duplicate.

    Raises:
        UserError: rows have no key, items are duplicates, missing (unless `intersect`), or of one id and two texts.
    """
    key = _shared_key(files)
    grouped = [_grouped(file, key) for file in files]
    every = set(grouped[0]).intersection(*grouped[1:])
    union = set(grouped[0]).union(*grouped[1:])
    if not every:
        shown = "; ".join(f"{file.file}: {_listed(list(groups))}" for file, groups in zip(files, grouped, strict=True))
        raise UserError(f"the files share no item by {key} ({shown}); name the column of the items with --key")
    left_out = len(union) - len(every)
    if left_out and not intersect:
        raise UserError(_missing(files, grouped, union))
    items = [item for item in grouped[0] if item in every]
    rows = [[groups[item] for item in items] for groups in grouped]
    remarks = _remarks(files, grouped, every)
    if key != "key":
        _check_content(files, rows, items, key)
    return Aligned(key, items, rows, remarks, left_out)


def _shared_key(files: Sequence[ArmResults]) -> str:
    """The key that all rows have and by which the files share the largest part of their items; the first of equals."""
    keys = [key for key in KEYS if all(key in row.keys for file in files for row in file.rows)]
    if "key" in keys:
        return "key"
    if not keys:
        for file in files:
            bare = next((row.line for row in file.rows if not row.keys), None)
            if bare is not None:
                raise UserError(
                    f"{file.file}:{bare}: has no id and no question to pair it by; name a column with --key"
                )
        raise UserError("some files name their items by id and some by question; name one column with --key")
    if "question" in keys and _ids_conflict(files) and _overlap(files, "question") > 0:
        return "question"  # each file counts its items in an order of its own
    return max(keys, key=lambda key: (_overlap(files, key), -keys.index(key)))


def _ids_conflict(files: Sequence[ArmResults]) -> bool:
    """Whether one id stands for two questions."""
    named = [(row.keys.get("id"), row.keys["question"]) for file in files for row in file.rows]
    first: dict[str, str] = {}
    return any(first.setdefault(item, text) != text for item, text in named if item is not None)


def _overlap(files: Sequence[ArmResults], key: str) -> float:
    sets = [{row.keys[key] for row in file.rows} for file in files]
    return len(set.intersection(*sets)) / len(set.union(*sets))


def _grouped(file: ArmResults, key: str) -> dict[str, list[ItemResult]]:
    groups: dict[str, list[ItemResult]] = {}
    for row in file.rows:
        groups.setdefault(row.keys[key], []).append(row)
    usual = Counter(len(rows) for rows in groups.values()).most_common(1)[0][0]
    odd = next(((item, rows) for item, rows in groups.items() if len(rows) != usual), None)
    if odd is not None and not file.updates and (file.skipped == 0 or len(odd[1]) > usual):
        item, rows = odd if len(odd[1]) > usual else max(groups.items(), key=lambda entry: len(entry[1]))
        lines = ", ".join(str(row.line) for row in rows[:_SHOWN])
        raise UserError(
            f"{file.file}: {key} {item[:60]!r} is there {len(rows)} times (lines {lines}), others "
            f"{min(len(rows) for rows in groups.values())}; remove the duplicates, or answer every item as often"
        )
    return groups


def _missing(files: Sequence[ArmResults], grouped: Sequence[dict[str, list[ItemResult]]], union: set[str]) -> str:
    parts = []
    for file, groups in zip(files, grouped, strict=True):
        absent = list(dict.fromkeys(item for other in grouped for item in other if item not in groups))
        if absent:
            parts.append(f"{file.file} lacks {len(absent):,} of {len(union):,} items ({_listed(absent)})")
    return f"{'; '.join(parts)}; --intersect compares the items that all files have"


def _remarks(files: Sequence[ArmResults], grouped: Sequence[dict[str, list[ItemResult]]], every: set[str]) -> list[str]:
    remarks = []
    order = [item for item in grouped[0] if item in every]
    for file, groups in zip(files, grouped, strict=True):
        if [item for item in groups if item in every] != order:
            remarks.append(
                f"{file.name} lists the items in another order than {files[0].name}; they were paired by key"
            )
        if len(groups) > len(every):
            remarks.append(
                f"{file.name}: {len(groups) - len(every):,} of {len(groups):,} items are not in every file and left out"
            )
        if file.skipped:
            remarks.append(f"{file.name}: {file.skipped:,} rows have no value and are left out")
        several = max(len(rows) for rows in groups.values())
        if several > 1:
            often = f"an item up to {several} times while it learned" if file.updates else f"each item {several} times"
            remarks.append(f"{file.name} answered {often}; an item counts by its mean")
        remarks += [f"{file.name}: {remark}" for remark in file.remarks]
    return remarks


def _check_content(
    files: Sequence[ArmResults], rows: Sequence[Sequence[Sequence[ItemResult]]], items: Sequence[str], key: str
) -> None:
    """One id must mean one item: its text, or the tool's hash of it, where both files have them."""
    for file, arm in zip(files[1:], rows[1:], strict=True):
        for item, first, other in zip(items, rows[0], arm, strict=True):
            one, two = first[0], other[0]
            hashes = one.hash and two.hash and one.hash != two.hash
            texts = one.keys.get("question", ""), two.keys.get("question", "")
            if hashes or (key == "id" and all(texts) and texts[0] != texts[1]):
                raise UserError(
                    f"{key} {item[:60]!r} is one item in {files[0].file}:{one.line} ({texts[0][:60]!r}) and another in "
                    f"{file.file}:{two.line} ({texts[1][:60]!r}); not the same item (--key pairs them anyway)"
                )


def _listed(items: Sequence[str]) -> str:
    return ", ".join(repr(item[:40]) for item in items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
