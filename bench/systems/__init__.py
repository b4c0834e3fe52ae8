"""The published systems on real weights: the inputs of each study, made of the public data, and its recipe."""
