"""One loop for every algorithm: a stream of batches, a loss, and checks on both.

fit                  the loop
streams              where updates from records come from
objectives           the arithmetic of every loss, as pure functions
algorithms           one file each
plan                 what a stage hands to its training
stage                a training in its run directory
stage_input          what a stage is handed
offline              what stages that learn from records share
online               what stages with rollouts share, their stream too, and what they make of rewards
examination          a reward model on held-out pairs, and its gate
memory               what a run will need
checks               before update 1
clock                time as a budget
optimizers           which parameters go how fast; fp16; moments on the disk
"""
