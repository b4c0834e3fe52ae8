"""A study: several stages from one file, every arm measured on the same questions, one record.

study             every section in turn, then every arm's answers
jobs              a study as jobs, each with those it waits for
job_claims        who works on which job, on one machine or on several with one file system
study_part        one of several processes that share a study's jobs
places            where each section, model and answer lies
study_record      arms with their answers, curves, costs and hashes; what audits, suites and best-of-n found
training_answers  what ppo and grpo sections answered while they learned
learning_curve    how much more preference data would help: one reward model a share
"""
