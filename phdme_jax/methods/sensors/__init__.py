"""Forecasts from a few sensors: what begins a trajectory is not told but has to be found."""
