"""What is known of an answer without any model: form, and which words and word pairs it uses."""

import math
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from smolt.preferences.audit.bias import LIST, MARKDOWN
from smolt.rewards.refusals import refuses

Floats = NDArray[np.float64]
BUCKETS = 1 << 18
RAREST = 3  # answers that an n-gram must be in
_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[.!?]+\s")


def form(asked: str, answer: str) -> list[float]:
    """Length, layout, wording and overlap with the question of one answer."""
    words, known = _WORD.findall(answer.lower()), set(_WORD.findall(asked.lower()))
    distinct, count, size = set(words), max(1, len(words)), max(1, len(answer))
    triples = set(zip(words, words[1:], words[2:], strict=False))
    return [
        math.log1p(len(words)),
        math.log1p(len(words)) ** 2,
        math.log1p(len(answer)),
        math.log1p(sum(1 for line in answer.split("\n") if line.strip())),
        len(distinct) / count**0.75,
        len(triples) / max(1, count - 2),
        sum(map(len, words)) / count,
        count / len(_SENTENCE.split(answer)),
        math.log1p(len(LIST.findall(answer))),
        float(MARKDOWN.search(answer) is not None),
        float("```" in answer),
        float(refuses(answer)),
        *(math.log1p(answer.count(mark)) for mark in "?!,"),
        len(distinct & known) / max(1, len(known)),
        len(distinct & known) / max(1, len(distinct)),
        sum(map(str.isdigit, answer)) / size,
        sum(map(str.isupper, answer)) / size,
        sum(not character.isascii() for character in answer) / size,
        float(answer[:1].isupper()),
        float(answer.rstrip()[-1:] in tuple('.!?`")}]')),
        float(not words),
    ]


def form_differences(asked: Sequence[str], better: Sequence[str], worse: Sequence[str]) -> Floats:
    """Form of the better minus form of the worse answer, each feature over its sd among all answers, [n, features]."""
    sides = [
        np.array([form(question, answer) for question, answer in zip(asked, answers, strict=True)])
        for answers in (better, worse)
    ]
    spread = np.vstack(sides).std(axis=0)
    difference: Floats = (sides[0] - sides[1]) / np.where(spread > 0, spread, 1.0)
    return difference


def word_differences(better: Sequence[str], worse: Sequence[str]) -> csr_array:
    """TF-IDF of words and word pairs, hashed, an answer's norm 1: better minus worse, [n, kept]."""
    counts = _counts([*better, *worse])
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    kept = np.flatnonzero(frequency >= RAREST)
    weights = counts[:, kept]
    weights.data = 1 + np.log(weights.data)
    weights = weights.multiply(np.log((1 + counts.shape[0]) / (1 + frequency[kept]))[None, :] + 1).tocsr()
    norms = np.sqrt(weights.multiply(weights).sum(axis=1))
    scaled = weights.multiply((1 / np.where(norms > 0, norms, 1.0))[:, None]).tocsr()
    return scaled[: len(better)] - scaled[len(better) :]


def _counts(texts: Sequence[str]) -> csr_array:
    """How often each text uses each hashed word and word pair, [texts, BUCKETS]."""
    indices, values, ends = [], [], [0]
    for text in texts:
        words = _WORD.findall(text.lower())
        runs = [*words, *(f"{one} {two}" for one, two in pairwise(words))]
        found: dict[int, int] = {}
        for run in runs:
            bucket = zlib.crc32(run.encode()) % BUCKETS
            found[bucket] = found.get(bucket, 0) + 1
        indices += sorted(found)
        values += [float(found[bucket]) for bucket in sorted(found)]
        ends.append(len(indices))
    return csr_array((values, indices, ends), shape=(len(texts), BUCKETS))
