"""Benches of trajectories of particles, several worlds in one study."""

from typing import Any

from ml_collections import ConfigDict

from experiments.data.equations import bench_of, load_or_make
from experiments.study.study import Bench, Context, Split
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations


def particles_of(config: ConfigDict, case: str) -> Equations:
    """The world that a case names, with the arguments of the group `cases`."""
    return make_equations(case, **config.cases[case])


def options_of_case(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods; networks are told how many axes vectors have."""
    options, world = config.to_dict(), particles_of(config, case)
    dimension = len(world.fields) // 2
    kinds = ("linear",) * len(world.fields)
    networks = {name: {**options[name], "dimension": dimension} for name in ("network", "symmetric_network")}
    return {**options, **networks, "data": {**options["data"], "kinds": kinds}}


def particle_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of a study of particles.

    Args:
      context: of the run.
      config: groups `cases` and `data`.
      case: name of the world.
      seed: draws the trajectories.
    Returns:
      the bench; its world is the sets of trajectories by split.
    """
    world, options = particles_of(config, case), options_of_case(config, case)
    counts = {"train": config.data.num_train, context.asked: config.data.num_test}
    made_from = {"case": case, "equations": config.cases[case].to_dict()}
    sets = load_or_make(dict.fromkeys(counts, world), counts, seed, context.workdir / case, made_from)
    splits = {context.asked: Split(*sets[context.asked])}
    return bench_of(context, world, options, sets, splits, seed)
