"""Data sets that studies share."""
