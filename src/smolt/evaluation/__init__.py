"""A model measured: answers to questions rated by one reward, pairs told apart, texts predicted.

evaluate      one model, one task, one directory
tasks         what can be measured, and a prepared measurement of it
questions     questions as a measurement
likelihood    pairs and texts as measurements
exam          the same questions for every arm of a study, best-of-n among them
measures      from rows to numbers with intervals
shards        parts of one evaluation, and putting them together
answer_file   answers as rows of samples.jsonl, unrated
lm_eval       the tasks of lm-evaluation-harness
suites        scenarios that several models answer
grading       the answers of any tool against gold answers
comparing     results of several arms, paired item by item
"""
