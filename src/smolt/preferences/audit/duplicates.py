"""Texts that are the same, or nearly: equal after normalisation, or with a Jaccard similarity of word triples >= 0.8.

Normalisation is Unicode NFKC, case folding, and every run of anything but letters and digits as one space. Candidates
for the near kind come from MinHash (Broder 1997; 64 functions in 16 bands of 4, which miss a pair at 0.8 once in
5,000); the similarity of each candidate is then computed exactly.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIMILAR = 0.8
WORDS = 3  # in a row make a shingle
FUNCTIONS, BANDS = 64, 16
COMPARED = 20  # members of a bucket that a newcomer is compared with
_SEPARATORS = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """The text as it is compared."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def shingles(text: str) -> frozenset[int]:
    """Hashes of the word triples of a normalised text; of a shorter text, the hash of the whole."""
    words = text.split()
    runs = [" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))]
    return frozenset(zlib.crc32(run.encode()) for run in runs)


def similarity(one: frozenset[int], other: frozenset[int]) -> float:
    """Jaccard's index of two sets, in [0, 1]."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


def clusters(texts: Sequence[str]) -> list[list[int]]:
    """Groups of at least two near or equal texts, as their places in order.

    Args:
        texts: already normalised.
    """
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    names = list(places)
    near = np.array(_near(names), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(near)), tuple(near.T)), shape=(len(names), len(names)))
    _, label = connected_components(graph.tocsr(), directed=False)
    groups: dict[int, list[int]] = {}
    for name, group in zip(names, label.tolist(), strict=True):
        groups.setdefault(group, []).extend(places[name])
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _near(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of different texts whose similarity is at least SIMILAR."""
    sets = [shingles(text) for text in texts]
    found = []
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for number, signature in enumerate(map(_signature, sets)):
        seen: set[int] = set()
        for band, part in enumerate(signature.reshape(BANDS, -1)):
            bucket = buckets.setdefault((band, part.tobytes()), [])
            seen.update(bucket[:COMPARED])
            bucket.append(number)
        found += [(other, number) for other in sorted(seen) if similarity(sets[other], sets[number]) >= SIMILAR]
    return found


def _signature(hashes: frozenset[int]) -> NDArray[np.uint64]:
    """The smallest value of each hash function, [FUNCTIONS]."""
    values = np.fromiter(sorted(hashes), dtype=np.uint64, count=len(hashes))
    mixed: NDArray[np.uint64] = (values[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
    smallest: NDArray[np.uint64] = mixed.min(axis=0)
    return smallest


_DRAWN = np.random.default_rng(0).integers(0, 2**63, size=(2, FUNCTIONS), dtype=np.uint64)
_FACTORS, _OFFSETS = _DRAWN[0] * np.uint64(2) + np.uint64(1), _DRAWN[1]
