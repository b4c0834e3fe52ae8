"""How positive an answer sounds: VADER's compound score."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from smolt.records import Answer, Question, Score
from smolt.rewards.rules import Reward, per_answer


def sentiment() -> Reward:
    """VADER's compound score, in [-1, 1]; 0 for an empty answer (Hutto and Gilbert, ICWSM 2014).

    Components: positive, negative, neutral, the shares of the text's sentiment, in [0, 1].
    """
    analyzer = SentimentIntensityAnalyzer()

    def rate(_question: Question, answer: Answer) -> Score:
        found = analyzer.polarity_scores(answer.text)
        components: dict[str, float | None] = {
            "positive": float(found["pos"]),
            "negative": float(found["neg"]),
            "neutral": float(found["neu"]),
        }
        return Score(float(found["compound"]), components)

    return per_answer(rate)
