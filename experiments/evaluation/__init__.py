"""Scores that studies share."""
