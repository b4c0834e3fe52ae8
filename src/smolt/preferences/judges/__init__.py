"""AI judges and rule judges behind one shape: a pair in both orders, an opinion or an abstention, never a guess.

both_orders  pairs, opinions, judgements; how two orders become one, and from pairs to preferences
rule_judges  a reward, a reward model or the length as judge
opening      from a recipe's block to a judge
labelling    a file of pairs judged: labels, and the judge's card
tricks       pairs made so that a judge that can be tricked is found out
audit, card  how far a judge can be trusted, as figures and as a finding
"""
