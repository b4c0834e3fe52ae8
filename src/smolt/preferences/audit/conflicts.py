"""Labels that cannot all be right: the same two answers labelled both ways, and circles a > b > c > a."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from smolt.preferences.audit.duplicates import normalised
from smolt.preferences.audit.labelled_pairs import LabelledPair


def opposites(items: Sequence[LabelledPair]) -> list[list[int]]:
    """Lines of each question's two answers that are labelled both ways; texts are compared normalised."""
    seen: dict[tuple[str, ...], dict[bool, list[int]]] = {}
    for item in items:
        better, worse = normalised(item.better), normalised(item.worse)
        if item.tie or better == worse:
            continue
        key = (normalised(item.asked), *sorted((better, worse)))
        seen.setdefault(key, {}).setdefault(better < worse, []).append(item.line)
    return [sorted([line for lines in sides.values() for line in lines]) for sides in seen.values() if len(sides) == 2]


def circles(items: Sequence[LabelledPair]) -> list[list[int]]:
    """Lines of each circle of preferences through three or more answers to one question."""
    numbers: dict[tuple[str, str], int] = {}
    edges: list[tuple[int, int, int]] = []
    for item in items:
        asked = normalised(item.asked)
        better, worse = (
            numbers.setdefault((asked, normalised(text)), len(numbers)) for text in (item.better, item.worse)
        )
        if not item.tie and better != worse:
            edges.append((better, worse, item.line))
    if not edges:
        return []
    ends = np.array([edge[:2] for edge in edges])
    graph = coo_array((np.ones(len(edges)), (ends[:, 0], ends[:, 1])), shape=(len(numbers), len(numbers)))
    _, label = connected_components(graph.tocsr(), directed=True, connection="strong")
    sizes = np.bincount(label)
    found: dict[int, list[int]] = {}
    for better, worse, line in edges:
        if label[better] == label[worse] and sizes[label[better]] > 2:
            found.setdefault(int(label[better]), []).append(line)
    return list(found.values())
