"""A model measured: answers to questions rated by one reward, pairs told apart, texts predicted.

evaluate      one model, one task, one directory
tasks         what can be measured, and where its data come from
measurement   what a measurement is, whatever is measured
questions     questions as a measurement
likelihood    pairs and texts as measurements
exam          the same questions for every arm of a study
best_of_n     the best of n answers, as an arm
measures      from rows to numbers with intervals
shards        parts of one evaluation, and putting them together
answer_file   answers as rows of samples.jsonl, unrated
lm_eval       the tasks of lm-evaluation-harness
suites        scenarios that several models answer
grading       the answers of any tool against gold answers
comparing     results of several arms, paired item by item
"""
