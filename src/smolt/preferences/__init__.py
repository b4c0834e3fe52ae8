"""Who says which of two answers is better, judges or people, and whether the data that come of it are sound.

judges       models, reward models and rules that compare
people       labels by hand, blind and in a terminal
audit        preference data looked at before a model learns from them
own_answers  pairs of a model's own answers, labelled by a reward or a judge
"""
