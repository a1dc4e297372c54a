"""Goes."""

from phdme_jax.methods.presets import baseline_group as baseline_group
