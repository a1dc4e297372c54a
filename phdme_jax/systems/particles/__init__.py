"""Particles that attract, repel or hang on springs, as trajectories of known equations."""
