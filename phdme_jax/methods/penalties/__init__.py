"""Priors of the examples in training: symmetries, and what each example obeys as penalties on the denoiser's mean."""
