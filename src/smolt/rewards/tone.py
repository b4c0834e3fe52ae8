"""How an answer sounds: VADER's compound score, and the signs of empathy in what it says."""

import re

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from smolt.data import Answer, Question, Score
from smolt.rewards.rules import Reward, per_answer


def sentiment() -> Reward:
    """VADER's compound score, in [-1, 1]; 0 for an empty answer (Hutto and Gilbert, ICWSM 2014).

    VADER 3.3.2 knows straight apostrophes only ("I don’t like it" is praise to it) and no word beside a slash or a
    dash, so both are made plain first.

    Components: positive, negative, neutral, the shares of the text's sentiment, in [0, 1].
    """
    analyzer = SentimentIntensityAnalyzer()

    def rate(_question: Question, answer: Answer) -> Score:
        found = analyzer.polarity_scores(_JOINS.sub(" ", _straight(answer.text)))
        components: dict[str, float | None] = {
            "positive": float(found["pos"]),
            "negative": float(found["neg"]),
            "neutral": float(found["neu"]),
        }
        return Score(float(found["compound"]), components)

    return per_answer(rate)


_JOINS = re.compile(r"(?<=\w)[/\u2013\u2014](?=\w)")


def _straight(text: str) -> str:
    return text.replace("\u2019", "'")


EMPATHY_RULE = "empathy-1"
"""Version of the lists, which its figures name; a change that can move one takes the next number."""

LONGEST = 4000
"""Characters of an answer that are read."""

SIGNS: dict[str, str] = {
    "acknowledges": (
        r"\b(?:sorry (?:to hear|that|for|about|you|your)|(?:that|this|it|what) (?:\w+ )?(?:sounds|must|can feel|feels)|"
        r"i (?:can )?(?:imagine|hear|understand|see how|see why)|"
        r"(?:it|that)(?:'s| is| makes) (?:\w+ )?(?:understandable|natural|okay|ok|normal|human|sense)|"
        r"no wonder|you(?:'re| are) not alone|thank you for (?:telling|sharing|trusting)|your feelings|"
        r"(?:glad|good) (?:that )?you (?:told|said|wrote|reached|are telling))"
    ),
    "feeling": (
        r"\b(?:sad(?:ness)?|hard|painful|pain|hurts?|hurtful|hurting|frighten(?:ing|ed)|scar(?:y|ed)|lonely|loneliness|"
        r"gri(?:ef|eve|eving)|overwhelm(?:ing|ed)|upset(?:ting)?|awful|tough|exhaust(?:ing|ed)|tired|difficult|anxious|"
        r"worr(?:y|ied|ying)|afraid|fear|angry|anger|asham(?:ed|e)|guilt(?:y)?|disappoint(?:ing|ed|ment)|heartbr\w+|"
        r"love[ds]?|loss|proud|happy|joy|relie(?:f|ved)|hope(?:ful)?|heavy|miss(?:ing)?|stress(?:ful|ed)?|feel(?:ing)?s?)\b"
    ),
    "you": r"\b(?:you|your|yours|yourself)\b",
    "offers": (
        r"(?:\?|\b(?:i(?:'m| am) here|here for you|here to listen|if you (?:want|like|wish|feel like|would)|"
        r"take (?:your time|care|a moment|it slowly)|(?:gentle|kind|patient) (?:with|to) yourself|reach out|"
        r"(?:talk|speak|lean|turn) (?:to|with|on) (?:\w+ ){0,3}(?:friend|someone|somebody|doctor|counsellor|counselor|"
        r"therapist|family|people)|you (?:can|could|might|deserve)|one step|let yourself|allow yourself))"
    ),
}
"""Sign -> pattern over the lower-case text, curly quotes made straight; the score is the share of signs present."""

DISMISSALS = (
    r"\b(?:get over it|calm down|(?<!can't )(?<!cannot )stop (?:complaining|crying|whining|being)|"
    r"(?:not|isn't|is not) (?:that|such) (?:a )?big|"
    r"(?:have|has|had) it worse|(?:could|might) be worse|cheer up|snap out|don't be (?:so|such|silly|dramatic)|"
    r"you(?:'re| are) (?:overreacting|too sensitive|being dramatic|exaggerating)|man up|pull yourself together|"
    r"your own fault|no reason to (?:be|feel)|everyone (?:has|goes|feels)|just (?:relax|move on|forget|think positive)|"
    r"it(?:'s| is|) (?:was )?(?:only|just) (?:a |an ))"
)
"""Phrases that wave a feeling away; an answer with one scores 0."""

_SIGNS = {name: re.compile(pattern) for name, pattern in SIGNS.items()}

_DISMISSES = re.compile(DISMISSALS)


def empathy() -> Reward:
    """The share of four signs that an answer shows, in [0, 1]; 0 when it waves the feeling away.

    Components, 1 or 0: acknowledges (names what the person goes through), feeling (a word for one), you (speaks to the
    person), offers (a question, support, a next step), dismisses.
    """

    def rate(_question: Question, answer: Answer) -> Score:
        text = _straight(answer.text[:LONGEST]).casefold()
        signs = {name: float(pattern.search(text) is not None) for name, pattern in _SIGNS.items()}
        dismisses = float(_DISMISSES.search(text) is not None)
        value = (1.0 - dismisses) * sum(signs.values()) / len(signs)
        return Score(value, {**signs, "dismisses": dismisses})

    return per_answer(rate)
