"""The network and its forwards; every number of a training or a measurement comes out of here.

trunk                    one network, on which each role is an adapter or a copy
adapter                  an adapter on disk and on a network, whole
precision                where and how precisely
packed_attention         attention over rows in which each real token stands once
packed_forward           the packed forward with fewer passes over memory, adapters in place
gradient_checkpointing   layers computed again in the backward pass
token_budget             how many tokens fit into a memory
kv_cache, decode_step    keys and values of what was decoded, and one more token straight over the weights
logprobs                 log-probabilities in chunks of the vocabulary
probing                  what two forwards are compared on
quiet                    libraries' bars and warnings kept off the screen
"""
