"""Goes."""

from phdme_jax.methods.presets import generator_groups as generator_groups
