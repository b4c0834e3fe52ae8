"""From text to tokens to log-probabilities and back: all that is done with a model, whatever it is done for.

rendering    records to token ids and back
groups       contexts and their answers as tokens, the one batch type
items        a data block as groups that fit the window
locating     what a model path means
ground       the files, precision, renderer and window that every stage stands on
forward      the one network and its forwards: packed, padded, and step by step
roles        policy and scorer
sampling     the one sampler
conditions   what answers are written under
answers      a policy's answers as text
conversation a policy and what was said so far
saving, merging   what is written of a model
gguf         a model as llama.cpp's one file, read and written
publishing   its card, and its way to a hub
"""
