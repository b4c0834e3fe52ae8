"""AI judges and rule judges behind one shape: a pair in both orders, an opinion or an abstention, never a guess.

verdicts   the nouns: pairs, showings, opinions, judgements, and how two orders become one
rubrics    what "better" means
prompts    the words a judge reads, with what it judges fenced
asking     a judge that reads words: pairwise, and as a grade from 1 to 10
local      a language model here, by the log-probabilities of the choices
endpoint   one behind an address (http: the requests, replies: what they say)
rules      a reward, a reward model or the length as judge
cache      verdicts kept by content
labelling  from pairs to judgements and preferences
build      from a recipe's block to a judge
"""

from smolt.judges.build import judge_reward
from smolt.judges.cache import VerdictCache
from smolt.judges.nouns import Showing
from smolt.judges.opening import open_judge
from smolt.judges.rubrics import Rubric, load_rubric, rubric_names
from smolt.judges.verdicts import Judge, Judgement, Opinion, Pair, as_preferences, judge_pairs, weigh

__all__ = [
    "Judge",
    "Judgement",
    "Opinion",
    "Pair",
    "Rubric",
    "Showing",
    "VerdictCache",
    "as_preferences",
    "judge_pairs",
    "judge_reward",
    "load_rubric",
    "open_judge",
    "rubric_names",
    "weigh",
]
