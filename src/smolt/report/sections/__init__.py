"""The parts of a report that are made from its record, one file each, in the order of findings."""
