"""A language model that reads words and answers: as a reward it grades, and preferences are made of its comparisons.

nouns         what is shown, and whether anything was said
rubrics       what "better" means
prompts       the words a judge reads, with what it judges fenced
asking        who answers prompts, and what a reply means as a grade from 1 to 10
local         a language model here, by the log-probabilities of the choices
endpoint      one behind an address (connection: the requests, replies: what they say)
cache         verdicts kept by content
judge_reward  the reward part named judge
"""
