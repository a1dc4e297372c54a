"""What each part of PHDME is worth, on the string: one change at a time, everything else the same.

    python -m experiments.ablations --size laptop --seeds 3

Augmentation by rollouts and the physics residual, each with and without the other; the residual's weight and target;
its weighting by the energy's uncertainty; how many trajectories, sites and how much noise; and structures that are
wrong. Variants with and without the residual have the same random draws; `diffusion_augmented`, whose draws are
others, shows beside a weight of zero how much those alone change.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.configs.ablations import get_config
from experiments.study.command import RunContext, Study, main
from experiments.study.field_study import check, evaluate
from experiments.study.seed_run import SeedRun
from experiments.vibrating_string import PROBLEM
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement
from phdme_jax.forecasting.structure_check import check_structure
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.legacy import Method, make_method
from phdme_jax.systems.energy.alternatives import with_opposite_sign, without_dissipation
from phdme_jax.systems.energy.base import Structure

# draws as `diffusion` does, so that the residual is the only change
DIFFUSION_PHYSICS = Method(
    "diffusion_physics", "observed data alone, with the residual of the learned energy", 0, data="observed"
)
STRUCTURES = {
    "given": lambda structure: structure,
    "undamped": without_dissipation,
    "opposite_sign": with_opposite_sign,
    "one_row_opposite": lambda structure: with_opposite_sign(structure, 0),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One change.

    Attributes:
      name: in the rows.
      method: what is trained or integrated.
      changes: values of the configuration by dotted key.
      weights: of the residual: "uncertainty", "off" (even) or "shuffled" (those of other
        places, times and trajectories).
      structure: that the energy is learned with, a key of `STRUCTURES`.
    """

    name: str
    method: Method
    changes: tuple[tuple[str, Any], ...] = ()
    weights: str = "uncertainty"
    structure: str = "given"


def _variants() -> Iterator[Variant]:
    phdme, rollout, diffusion = (make_method(name) for name in ("phdme", "gp_rollout", "diffusion"))
    for method in (phdme, make_method("diffusion_augmented"), DIFFUSION_PHYSICS, diffusion, rollout):
        yield Variant(method.name, method)
    for weight in (0.0, 0.01, 1.0, 10.0):
        name = f"phdme_residual_weight_{weight:g}".replace(".", "_")
        yield Variant(name, phdme, (("physics.residual_weight", weight),))
    yield Variant("phdme_residual_target_zero", phdme, (("physics.residual_target", "zero"),))
    for weights in ("off", "shuffled"):
        yield Variant(f"phdme_uncertainty_{weights}", phdme, weights=weights)
    for count in (1, 2, 8, 16):
        for method in (rollout, phdme, diffusion):
            yield Variant(f"{method.name}_trajectories_{count}", method, (("data.num_observed", count),))
    for sites in (8, 16, 32):
        yield Variant(f"gp_rollout_sites_{sites}", rollout, (("data.num_sites", sites),))
    for noise in (0.0, 0.05):
        yield Variant(f"gp_rollout_noise_{100 * noise:.0f}", rollout, (("data.noise", noise),))
    for structure in list(STRUCTURES)[1:]:
        yield Variant(f"gp_rollout_{structure}", rollout, structure=structure)


VARIANTS = {variant.name: variant for variant in _variants()}


class VariantRun(SeedRun):
    """One seed with one change; data are shared between variants, energies and trainings are not."""

    def __init__(self, context: RunContext, variant: Variant, seed: int) -> None:
        config = context.config.copy_and_resolve_references()
        with config.unlocked():
            for key, value in variant.changes:
                group, name = key.split(".")
                config[group][name] = value
        own = dataclasses.replace(context, config=config, workdir=context.workdir / "variants" / variant.name)
        super().__init__(PROBLEM, own, seed, data_folder=context.workdir)
        self.variant = variant
        change = STRUCTURES[variant.structure]
        self.structure: Structure = change(self.structure)

    def rollouts(self, energy: str = "posterior") -> priors.Rollouts:
        """Rollouts whose residual weights are as the variant says."""
        rolled = super().rollouts(energy)
        return rolled._replace(weights=changed_weights(rolled.weights, self.variant.weights, self.seed))

    def refit(self, structure: Structure) -> priors.Prior:
        """The energy learned with another structure."""
        return priors.fit_prior(structure, self.data.observed, self.times, **self.config.prior)


def changed_weights(weights: np.ndarray, how: str, seed: int) -> np.ndarray:
    """Weights (n, interval, *grid, field) as they are, even over each field, or shuffled.

    Raises:
      ValueError: unknown way.
    """
    if how == "uncertainty":
        return weights
    if how == "off":
        everywhere = tuple(range(weights.ndim - 1))
        return np.broadcast_to(weights.mean(axis=everywhere), weights.shape).astype(weights.dtype)
    if how == "shuffled":
        flat = weights.reshape(-1, weights.shape[-1])
        return flat[np.random.default_rng(seed).permutation(len(flat))].reshape(weights.shape)
    raise ValueError(f"expected weights uncertainty, off or shuffled, got {how!r}")


def structure_rows(run: VariantRun) -> None:
    """What the data say of the structure: log evidence that the best alternative gains."""
    found = check_structure(run.prior(), run.refit)
    rows = {f"evidence_gain_{name}": Measurement(gain, "nat") for name, gain in found.gains.items()}
    run.context.results.record(PROBLEM.system, run.variant.name, run.seed, "train", rows, len(run.data.observed))
    for warning in found.warnings:
        print(f"{run.variant.name}: {warning}", flush=True)


def run_study(context: RunContext) -> list[Section]:
    """Every seed and variant; what is finished is not repeated."""
    for seed in context.seeds:
        for name in context.methods:
            if context.results.has(PROBLEM.system, name, seed, "shifted", ("nmse", "coverage")):
                continue
            run = VariantRun(context, VARIANTS[name], seed)
            if name == "gp_rollout" or VARIANTS[name].structure != "given":
                structure_rows(run)
            evaluate(run, VARIANTS[name].method, name)
            print(f"seed {seed}: {name} done", flush=True)
    words = (
        "The string study with half of its calibration and test sets and a quarter of its training. One change at a "
        "time from four trajectories, one per cent of noise, all sites, residual weight 0.1. Evidence gains compare "
        "the structure with others on the same data: above 10 nats the fit says that the structure is wrong."
    )
    return [Section("One change at a time", words, (), ("nmse", "crps", "coverage", "band_width", "evidence_gain"))]


STUDY = Study(
    name="ablations",
    title="Ablations on the string: what each part is worth",
    get_config=get_config,
    run=run_study,
    methods=tuple(VARIANTS),
    sizes=("smoke", "laptop"),
    check=lambda context: check(PROBLEM, context),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
