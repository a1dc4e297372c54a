"""What the methods are compared with: networks trained on the observed trajectories, and other packages."""
