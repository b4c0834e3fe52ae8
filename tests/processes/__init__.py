"""Several processes on one piece of work: the same numbers, one writer, and an end together when one is lost."""
