"""Methods that continue trajectories of particles from the last frame that is given."""
