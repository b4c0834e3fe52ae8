"""What the votes of an arena say: each model's rating with its interval, and which models they cannot tell apart."""

from collections.abc import Sequence

from smolt.preferences.people.nouns import Choice, Vote
from smolt.report.panels import Panel, Table
from smolt.report.wording import counted
from smolt.statistics.ratings import Bout, Rating, Ratings, bradley_terry

SCORES: dict[Choice, float] = {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5}
"""Of the first answer; a skip is no vote, and two bad answers are as good as each other."""
MOST_SAID = 6


def ratings_of(votes: Sequence[Vote]) -> Ratings:
    """Bradley-Terry ratings of the models that were voted on."""
    return bradley_terry(
        [Bout(vote.first, vote.second, SCORES[vote.label.choice]) for vote in votes if vote.label.choice in SCORES]
    )


def vote_panel(votes: Sequence[Vote]) -> Panel:
    """The ratings as a finding: the best first, with 95 % intervals and n; what cannot be told is said."""
    found = ratings_of(votes)
    given = [vote for vote in votes if vote.label.choice in SCORES]
    if not given:
        return Panel("arena", "Ratings", sentences=("No votes yet.",))
    people = len({vote.label.annotator for vote in given})
    bad = sum(vote.label.choice == "both_bad" for vote in given)
    head = f"{counted(len(given), 'vote')} of {counted(people, 'person') if people == 1 else f'{people} people'}"
    head += f", {bad} of them for neither (both bad; they count as ties)." if bad else "."
    table = Table(
        "Rating (Elo's scale: 400 points are odds of 10 to 1; their mean is 1,000), the best first.",
        ("model", "rating", "votes", "won", "even"),
        tuple((one.arm, one.points, one.votes, one.won, one.even) for one in found.arms),
    )
    return Panel("arena", "Ratings", sentences=(head, *_said(found)), tables=(table,))


def _said(found: Ratings) -> list[str]:
    """One sentence for each two models that cannot be told apart, and for each without a rating."""
    said = [f"Not enough votes to tell {a} from {b}: the difference's interval holds 0." for a, b in found.unclear]
    if len(said) > MOST_SAID:
        said = [*said[:MOST_SAID], f"The same holds for {len(said) - MOST_SAID} other pairs."]
    return said + [_unrated(one) for one in found.arms if one.points is None]


def _unrated(one: Rating) -> str:
    """Why an arm has no rating."""
    if one.won == one.votes:
        return f"Not enough votes to rate {one.arm}: it won all {one.votes}."
    if one.won + one.even == 0:
        return f"Not enough votes to rate {one.arm}: it lost all {one.votes}."
    return f"Not enough votes to rate {one.arm}: nothing ties it to the other models both ways."
