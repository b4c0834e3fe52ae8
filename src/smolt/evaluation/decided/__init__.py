"""Decisions measured: how often right, how honest the probabilities, and what may be decided alone.

rated_decisions    a model's probabilities as rated answers, one a question
trivial_decisions  a constant's and a bag of words', fitted on other states
asked_decisions    a model asked, a temperature fitted
decided_measures   the calibration error, before and after a temperature
decision_panel, decision_charts   the finding for a report
decision_subject   decisions as a measurement
"""
