"""Benchmarks: `python -m bench --help`. Every figure is of a process of its own; nothing else may run beside them."""
