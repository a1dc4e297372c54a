"""What each part of PHDME is worth, on the string: one change at a time, everything else the same.

`python -m experiments.ablations --size laptop --seeds 3`

Augmentation by rollouts and the physics residual, each with and without the other; the residual's weight and target;
its weighting by the energy's uncertainty; how many trajectories, sites and how much noise; and structures that are
wrong. Variants with and without the residual have the same random draws; `diffusion_augmented`, whose draws are
others, shows beside a weight of zero how much those alone change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments import vibrating_string
from experiments.data.fields import ALTERNATIVES
from experiments.study.command import main
from experiments.study.study import Run, Shown, Variant
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement, label_of
from phdme_jax.forecasting.structure_check import check_structure
from phdme_jax.methods.base import Fitted
from phdme_jax.methods.energy.gp_rollout import fitted_rollout
from phdme_jax.methods.energy.posterior import PriorOptions, fit_energy
from phdme_jax.systems.energy.base import Structure

CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {},
    "laptop": {
        "data": {"num_calibration": 64, "num_test": 64},
        "rollouts": {"count": 2048},
        "sampling": {"num_steps": 4},
        "training": {
            "propagator_stages": ((1, 6000, 64, 1e-2), (8, 200, 32, 1e-3)),
            "observed_stages": ((4, 1500, 64, 5e-3), (16, 300, 32, 1e-3)),
            "spread_stage": (500, 64, 3e-3),
            "residual_stage": (500, 16, 2e-3),
            "amplitude_draws": 64,
        },
    },
}
METHODS = ("phdme", "diffusion_augmented", "diffusion_physics", "diffusion", "gp_rollout")


def groups(size: str) -> dict[str, Any]:
    """Groups of the string study, half of its rollouts, calibration and test, a quarter of its training."""
    base = vibrating_string.groups(size)
    for group, values in CHANGES[size].items():
        base[group] |= values
    return base


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """A method and at most one change."""
    del config
    for method in METHODS:
        yield Variant(method)
    trajectories = ("phdme", "gp_rollout", "diffusion")
    for key, values, methods in (
        ("physics.residual_weight", (0.0, 0.01, 1.0, 10.0), ("phdme",)),
        ("physics.residual_target", ("zero",), ("phdme",)),
        ("physics.weights", ("off", "shuffled"), ("phdme",)),
        ("data.num_observed", (1, 2, 8, 16), trajectories),
        ("data.num_sites", (8, 16, 32), ("gp_rollout",)),
        ("data.noise", (0.0, 0.05), ("gp_rollout",)),
        ("structure.alternative", tuple(ALTERNATIVES), ("gp_rollout",)),
    ):
        for value in values:
            for method in methods:
                yield Variant(method, ((key, value),))


def structure_rows(run: Run) -> None:
    """What the data say of each structure that is learned with: log evidence that its best alternatives gain."""
    if "gp_rollout" not in run.context.methods:
        return
    present = {(row.label, row.seed) for row in run.context.results.rows() if row.metric.startswith("evidence_gain")}
    for name in (None, *ALTERNATIVES):
        changes = (("structure.alternative", name),) if name else ()
        if (label_of("gp_rollout", dict(changes)), run.seed) in present:
            continue
        learned = run.changed(changes)
        task, refit = learned.bench.task, partial(_refit, learned)
        found = check_structure(task.problem.structure, learned.fitted("gp_rollout"), refit)
        rows = {f"evidence_gain_{other}": Measurement(gain, "nat") for other, gain in found.gains.items()}
        learned.record("gp_rollout", "train", rows, len(task.train().fields))


def _refit(run: Run, structure: Structure) -> Fitted:
    """The energy learned from the same data with another structure."""
    task, options = run.bench.task, PriorOptions(**run.bench.options["prior"])
    basis, posterior, seconds = fit_energy(structure, task.train(), options)
    return fitted_rollout(structure, basis, posterior, task.times, options.substeps, seconds, task.companions)


def section(shown: Shown) -> Sequence[Section]:
    """All variants in one table."""
    del shown
    text = (
        "The string study with half of its calibration and test sets and a quarter of its training. One change at a "
        "time from four trajectories, one per cent of noise, all sites, residual weight 0.1. Evidence gains compare "
        "the structure with others on the same data: above 10 nats the fit says that the structure is wrong."
    )
    return [Section("One change at a time", text, (), ("nmse", "crps", "coverage", "band_width", "evidence_gain"))]


STUDY = replace(
    vibrating_string.STUDY,
    name="ablations",
    title="Ablations on the string: what each part is worth",
    sizes={size: partial(groups, size) for size in CHANGES},
    cases=("vibrating_string",),
    trial_methods=METHODS,
    variants=make_variants,
    extras=(structure_rows,),
    sections=(section,),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
