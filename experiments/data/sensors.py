"""The trajectories of a study of fields, asked for by a few sensors in the place of their initial state."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.data.fields import SPLITS, check_fields, field_bench, learner_system
from experiments.study.study import Bench, Context, Split
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.methods.base import stage_key
from phdme_jax.methods.sensors.sensed import draw_places, read_window, sensor_options

CALIBRATION = "calibration"


def check_sensors(context: Context) -> None:
    """Refuses a configuration that cannot be asked or calibrated.

    Raises:
      ValueError: what is wrong.
    """
    check_fields(context)
    config = context.config
    chosen = sensor_options(config.to_dict(), config.data.num_frames)
    points = min(int(np.prod(learner_system(config, case).structure.grid.points)) for case in context.systems)
    if not set(config.asked.counts) <= set(chosen.counts) or not 0 < max(chosen.counts) <= points:
        raise ValueError(
            f"expected sensors.counts of at most {points} places with all of asked.counts among them, got "
            f"{tuple(chosen.counts)} and {tuple(config.asked.counts)}"
        )
    if config.asked.num_calibration < minimum_calibration_size(config.level) or config.asked.num_samples < 2:
        raise ValueError(
            f"expected asked.num_calibration of at least {minimum_calibration_size(config.level)} and "
            f"asked.num_samples of at least 2, got {config.asked.num_calibration} and {config.asked.num_samples}"
        )


def sensor_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed: a split of sensors for each number of places, and a calibration split of its own for each.

    Places and noise are drawn anew for every trajectory. Noise is in units of each field's root mean square over the
    observed data, which is what methods take it for.
    """
    plain = field_bench(context, config, case, seed)
    structure, times = plain.task.problem.structure, plain.task.times
    window, asked = sensor_options(plain.options, len(times)).window, config.asked
    assert plain.scale is not None
    deviation = config.sensors.noise * np.asarray(plain.scale, np.float64)
    suffix = "_validation" if context.validates else ""
    key = stage_key(plain.key, "questions")

    @partial(jax.jit, static_argnums=1)
    def seen(trajectories: Any, count: int, key: Any) -> Any:
        def one(first: Any, key: Any) -> Any:
            place_key, noise_key = jax.random.split(key)
            mask = draw_places(structure, count, place_key).astype(first.dtype)
            return read_window(first, mask, jnp.asarray(deviation), noise_key)

        return jax.vmap(one)(trajectories[:, :window], jax.random.split(key, len(trajectories)))

    splits = {}
    for count in asked.counts:
        for source, name, number in (
            (CALIBRATION, f"{CALIBRATION}_{count}", asked.num_calibration),
            (context.asked, f"sensors_{count}{suffix}", asked.num_test),
        ):
            truth = plain.splits[source].truth[:number]
            # other places and noise for every split and number of sensors
            split_key = jax.random.fold_in(jax.random.fold_in(key, SPLITS[source]), count)
            condition = jax.tree.map(np.asarray, seen(jnp.asarray(truth), count, split_key))
            splits[name] = Split(truth, condition, questions=True, calibrated_by=f"{CALIBRATION}_{count}")
    numbers = {name: index for index, name in enumerate(splits)}
    return Bench(
        task=plain.task,
        options=plain.options,
        splits=splits,
        key=plain.key,
        sample_key=lambda split, method: jax.random.fold_in(stage_key(plain.key, "samples"), 100 + numbers[split]),
        num_samples=asked.num_samples,
        scale=plain.scale,
        level=config.level,
        world=plain.world,
    )
