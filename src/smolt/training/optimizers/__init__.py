"""What takes a step, and what it needs beside gradients.

parameter_groups   which parameters go how fast, and by which optimizer
loss_scale         fp16
tensorfile         moments on the disk
"""
