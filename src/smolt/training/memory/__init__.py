"""What a training will need in memory, foretold before it starts.

footprint   the formulas: weights, gradients, moments, activations
shapes      a network's shape, without its weights
workload    the largest batches that a recipe may meet
outlook     the forecast, and the refusal where it does not fit
system      what is free and what is used on this machine
"""
