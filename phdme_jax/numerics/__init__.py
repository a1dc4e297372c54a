"""Floor 0: arrays only. Grids, stencils, quadrature, linear algebra, time stepping, reference solutions."""

from phdme_jax.numerics.grid import Grid as Grid
from phdme_jax.numerics.quadrature import cumulative_integral as cumulative_integral
from phdme_jax.numerics.reference import solve_reference as solve_reference
from phdme_jax.numerics.stepping import rollout as rollout
