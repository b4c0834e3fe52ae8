"""Is a reward worth training on? One that is learned, one that is written, and both beside a gold one.

auditing     a reward model on held-out pairs: baselines, length, calibration, probes, and a gate
model_audit  the same from files
seen_pairs   which pairs it learned from, as its run tells
words        a bag of words as a preference model, one of the baselines
figures      the numbers, from leads and length gaps
probes       made-up answers that no reader would choose
audit_panel  the finding for a report
xray         what any reward says of some answers: its parts, its length bias, its signal
linter       what a reward says of answers that no reader would choose
gold         the answers of a training rated again by rules it did not learn from, and where the two part
gold_panel   the finding for a report
"""
