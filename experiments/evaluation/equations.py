"""Scores of generated fields: how well they obey the equations, and how close their distribution is to the data."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet, resolver
from experiments.evaluation.forecasts import coverage
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import accuracy
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.numerics.batching import in_chunks, num_workers
from phdme_jax.systems.equations.base import Equations, stacked, stacked_residual, without_padding
from phdme_jax.training import distances

CHUNK = 64

_DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "sliced_wasserstein": jax.jit(lambda left, right: distances.sliced_wasserstein(left, right, jax.random.key(5))),
    "wasserstein": jax.jit(distances.wasserstein_of_values),
    "energy_distance": jax.jit(distances.energy_distance),
    "spectrum_error": jax.jit(distances.spectrum_error),
}
_ENERGY_DISTANCE_OF_PAIRS = jax.jit(partial(distances.energy_distance, paired=True))


def mean_measurement(values: np.ndarray, unit: str = "1") -> Measurement:
    """Mean over examples and its standard error; nothing where one is not finite."""
    if not np.all(np.isfinite(values)):
        return Measurement(None, unit)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Measurement(float(np.mean(values)), unit, error)


def median_measurement(values: np.ndarray, unit: str = "1") -> Measurement:
    """Median over examples, those that are not finite being the largest; nothing where it is not finite."""
    median = float(np.median(np.where(np.isfinite(values), values, np.inf)))
    return Measurement(median if np.isfinite(median) else None, unit)


@lru_cache
def _residual_sizes(equations: Equations) -> Callable[[Any, Any], Any]:
    """Mean absolute and root-mean-square residual of many examples, and the latter by other stencils, if there are."""

    @jax.jit
    @jax.vmap
    def sizes(fields: Any, condition: Any) -> Any:
        found = stacked_residual(equations, fields, condition)
        others = [] if equations.unseen is None else [stacked(equations.unseen(fields, condition))]
        return jnp.mean(jnp.abs(found)), *(jnp.sqrt(jnp.mean(part**2)) for part in (found, *others))

    return sizes


@lru_cache
def _excesses(equations: Equations) -> Callable[[Any, Any, Any], Any]:
    """Root mean square of what the residuals of many examples differ from those of others of the same conditions."""

    @jax.jit
    @jax.vmap
    def excesses(fields: Any, others: Any, condition: Any) -> Any:
        left, right = (stacked_residual(equations, part, condition) for part in (fields, others))
        return jnp.sqrt(jnp.mean((left - right) ** 2))

    return excesses


def residual_excess(equations: Equations, generated: FieldSet, solved: np.ndarray) -> Measurement:
    """What a scheme's residual says of fields beyond what it leaves of solutions: mean rms(r(x) - r(x solved)).

    A residual is not zero where another scheme made the data, and that of blurred fields can lie below it. Of this one
    the floor is zero, and it is in proportion to small errors.

    Args:
      equations: the equations.
      generated: fields and their conditions, physical units.
      solved: solutions that they stand for, such as those that begin as they do.
    Returns:
      the mean over examples.
    """
    return mean_measurement(in_chunks(_excesses(equations), CHUNK, generated.fields, solved, generated.condition))


def physics_scores(equations: Equations, generated: FieldSet) -> dict[str, Measurement]:
    """Residual and, where the solution can be computed anew, how far the generated one is from it.

        residual_mae = mean |r| over places and equations,   relative_residual = residual_mae / std of the solution
        residual_rms_unseen: by stencils that no method was shown
        resolve_error = |p - p(K)| / |p(K)| in the root mean square of each example, p(K) the solution computed anew

    Args:
      equations: the equations.
      generated: fields and their conditions, physical units.
    Returns:
      measurements by name, means over the examples; the resolve error is a median.
    """
    count = equations.num_solution
    mae, rms, *unseen = in_chunks(_residual_sizes(equations), CHUNK, *generated)
    spread = float(np.std(generated.fields[..., :count]))
    rows = {"residual_mae": mean_measurement(mae), "residual_rms": mean_measurement(rms)}
    if unseen:
        rows["residual_rms_unseen"] = mean_measurement(unseen[0])
    rows["relative_residual"] = Measurement(float(np.mean(mae)) / spread if spread > 0 else None)
    if equations.resolve is not None:
        again = in_chunks(resolver(equations), CHUNK, *generated, workers=num_workers())[..., :count]
        others = tuple(range(1, again.ndim))
        size = np.sqrt(np.sum(again**2, axis=others))
        error = np.sqrt(np.sum((generated.fields[..., :count] - again) ** 2, axis=others)) / size
        rows["resolve_error"] = Measurement(float(np.median(error)) if np.all(np.isfinite(error)) else None)
    return rows


def distance_scores(
    equations: Equations, generated: FieldSet, reference: FieldSet, paired: bool = False
) -> dict[str, Measurement]:
    """Distances between generated fields and data, channel by channel, as many of each.

    Args:
      equations: names the channels.
      generated: fields of the model.
      reference: fields of the data that no model has seen.
      paired: whether both answer the same tasks, one by one.
    Returns:
      measurements by name: sliced_wasserstein, wasserstein, energy_distance and, on a grid, spectrum_error, each with
      the name of the channel; mmse and smse, see `moment_errors`, where nothing is given.
    """
    count = min(len(generated.fields), len(reference.fields))
    rows: dict[str, Measurement] = {}
    measures = dict(_DISTANCES)
    if paired:
        measures["energy_distance"] = _ENERGY_DISTANCE_OF_PAIRS
    if not equations.grid.points:
        del measures["spectrum_error"]
    if count < 2:
        del measures["energy_distance"]
    for name in equations.fields:
        pair = (without_padding(equations, part.fields[:count], name) for part in (generated, reference))
        left, right = (jnp.asarray(part) for part in pair)
        for measure, distance in measures.items():
            value = float(distance(left, right)) if jnp.all(jnp.isfinite(left)) else None
            rows[f"{measure}_{name}"] = Measurement(value)
        if not equations.conditions and count > 1:
            rows |= {f"{moment}_{name}": Measurement(value) for moment, value in moment_errors(left, right).items()}
    return rows


def moment_errors(generated: Any, reference: Any) -> dict[str, float | None]:
    """Errors of the mean and of the standard deviation at each place, in units of the reference's variance.

        mmse = mean_z (E x(z) - E y(z))^2 / mean_z Var y(z),   smse the same of the standard deviations

    Args:
      generated: examples of one channel, (sample, *grid).
      reference: of the data.
    Returns:
      both by name, None where they are not finite. Of n examples of the data itself they are 2 / n and about 1 / n.
    """
    variance = float(jnp.mean(jnp.var(reference, axis=0)))
    of_mean = jnp.mean((jnp.mean(generated, axis=0) - jnp.mean(reference, axis=0)) ** 2)
    of_deviation = jnp.mean((jnp.std(generated, axis=0) - jnp.std(reference, axis=0)) ** 2)
    found = {"mmse": float(of_mean) / variance, "smse": float(of_deviation) / variance}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def equation_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of generated fields against those of a split: equations, closeness, cost; or of answers."""
    if answer.bench.splits[answer.split].questions:
        return answer_scores(answer)
    equations, generated, reference = answer.bench.task.problem, generated_set(answer), reference_set(answer)
    rows = physics_scores(equations, generated)
    rows |= distance_scores(equations, generated, reference, bool(equations.conditions))
    return rows | costs(answer)


def costs(answer: Answer) -> dict[str, Measurement]:
    """Seconds and calls of the network a sample."""
    model = answer.fitted.model
    rows = {"seconds_per_sample": Measurement(answer.forecasts.seconds, "s"), "nfe": Measurement(model.num_calls)}
    return rows | ({"backward_calls": Measurement(model.num_backward)} if model.num_backward else {})


def answer_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores of answers to questions.

        relative_l2_FIELD = |mean of the samples - truth| / |truth| of each example, for fields not wholly observed

    and, at all places of fields that were not observed, crps, energy_score and spread_skill, see
    `app.scores.accuracy`, each field in its standard deviations; residuals of one sample; cost.
    constraint_error is the largest miss of an observation by a sample, in units of the field's standard deviation;
    conserved_error, where something is, that of what is conserved, in units of the first field's.
    coverage and band_width are those of the calibrated band at the places that were not observed, where there is one.
    """
    equations, split, forecasts = answer.bench.task.problem, answer.bench.splits[answer.split], answer.forecasts
    assert forecasts.samples is not None
    mean = forecasts.samples.mean(axis=1)
    hidden = [index for index in range(mean.shape[-1]) if np.any(split.condition.mask[..., index] == 0)]
    rows = {}
    for index in hidden:
        missed, size = ((part[..., index] ** 2).reshape(len(mean), -1) for part in (mean - split.truth, split.truth))
        error = np.sqrt(missed.sum(axis=1) / size.sum(axis=1))
        rows[f"relative_l2_{equations.fields[index]}"] = mean_measurement(np.where(forecasts.ok, error, np.nan))
    rows |= obedience_scores(answer)
    axes = tuple(range(split.truth.ndim - 1))
    middle, deviation = split.truth.mean(axis=axes), split.truth.std(axis=axes)

    def unseen(values: np.ndarray) -> np.ndarray:
        return hidden_places(split.condition.mask, (values - middle) / deviation)

    drawn = np.stack([unseen(sample) for sample in np.moveaxis(forecasts.samples, 1, 0)], axis=1)
    few = Forecasts(unseen(mean), drawn, forecasts.ok, forecasts.seconds)
    found = accuracy(unseen(split.truth), few, ("hidden",))
    rows |= {name: found[name] for name in ("crps", "energy_score", "spread_skill") if name in found}
    if answer.calibration is not None and answer.band_scores is not None:
        rows |= coverage(split.truth, forecasts, answer.calibration, answer.band_scores, split.counted)
    sample = FieldSet(forecasts.samples[:, 0], split.condition.condition)
    physics = physics_scores(equations, sample)
    rows |= {
        name: physics[name] for name in ("residual_rms", "residual_rms_unseen", "resolve_error") if name in physics
    }
    return rows | costs(answer)


def hidden_places(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values where nothing was observed, of all fields one after another.

    Args:
      mask: one where something was observed, (n, *grid, field).
      values: of the same shape.
    Returns:
      values, (n, place, 1).
    Raises:
      ValueError: of some example more was observed than of another.
    """
    hidden = np.asarray(mask) == 0
    counts = hidden.reshape(len(hidden), -1).sum(axis=-1)
    if counts.min() != counts.max():
        raise ValueError(f"expected as many observed places of each example, got {counts.tolist()} hidden")
    by_field = np.moveaxis(values, -1, 1)[np.moveaxis(hidden, -1, 1)]
    return by_field.reshape(len(hidden), -1, 1)


def obedience_scores(answer: Answer) -> dict[str, Measurement]:
    """constraint_error and, where something is conserved, conserved_error, see `answer_scores`; of all samples."""
    equations, split, forecasts = answer.bench.task.problem, answer.bench.splits[answer.split], answer.forecasts
    assert forecasts.samples is not None
    question, size = split.condition, split.truth.std(axis=tuple(range(split.truth.ndim - 1)))
    misses = question.mask[:, None] * (forecasts.samples - question.values[:, None]) / size
    rows = {"constraint_error": Measurement(float(np.abs(misses).max()) if forecasts.ok.all() else None)}
    if equations.conserved is not None:
        flat = forecasts.samples.reshape(-1, *split.truth.shape[1:])
        given = np.repeat(question.condition, forecasts.samples.shape[1], axis=0)
        left = _conserved_error(equations, FieldSet(flat, given), size[0])
        rows["conserved_error"] = left if forecasts.ok.all() else Measurement(None)
    return rows


def _conserved_error(equations: Equations, generated: FieldSet, size: float) -> Measurement:
    return Measurement(float(np.abs(in_chunks(_balances(equations), CHUNK, *generated)).max() / size))


@lru_cache
def _balances(equations: Equations) -> Callable[[Any, Any], Any]:
    """What is conserved, of many examples."""
    assert equations.conserved is not None
    return jax.jit(jax.vmap(equations.conserved))


def shared_question_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores of answers to one question that all examples of a split share, against many draws of the right answer.

    mmse and smse, see `moment_errors`, of one field or the mean of several, and mmse_absolute and smse_absolute, the
    same in square units of the field; residuals; what is missed of observations and of what is conserved; cost.
    """
    equations, truth = answer.bench.task.problem, answer.truth
    generated = FieldSet(drawn_fields(answer), np.zeros((len(truth), *truth.shape[1:-1], len(equations.conditions))))
    rows = shared_moments(generated.fields, answer.bench.world["reference"].fields)
    physics = physics_scores(equations, generated)
    names = ("residual_mae", "residual_rms", "residual_rms_unseen", "resolve_error")
    rows |= {name: physics[name] for name in names if name in physics}
    return rows | obedience_scores(answer) | costs(answer)


def shared_moments(generated: np.ndarray, truth: np.ndarray) -> dict[str, Measurement]:
    """mmse, smse, mmse_absolute and smse_absolute, see `shared_question_scores`, mean over the fields."""
    found = {}
    for name in ("mmse", "smse"):
        each = [moment_errors(generated[..., index], truth[..., index])[name] for index in range(truth.shape[-1])]
        errors = np.array([np.nan if value is None else value for value in each])
        sizes = np.var(truth, axis=0).reshape(-1, truth.shape[-1]).mean(axis=0)
        found[name] = Measurement(float(np.mean(errors)) if np.isfinite(errors).all() else None)
        found[f"{name}_absolute"] = Measurement(float(np.mean(errors * sizes)) if np.isfinite(errors).all() else None)
    return found


def shared_reference_rows(run: Run) -> None:
    """Scores of as many draws of the right answer as a method gives: the floor that sampling leaves."""
    equations, truth = run.bench.task.problem, run.bench.world["reference"].fields
    for name, split in run.bench.splits.items():
        others = FieldSet(split.truth, np.asarray(split.plain))
        rows = shared_moments(others.fields, truth) | physics_scores(equations, others)
        if equations.conserved is not None:
            rows["conserved_error"] = _conserved_error(equations, others, float(np.std(split.truth[..., 0])))
        run.record("reference", name, rows, len(split.truth))


def generated_set(answer: Answer) -> FieldSet:
    """What a method generated for the conditions of a split, one of each."""
    return FieldSet(drawn_fields(answer), answer.bench.splits[answer.split].condition)


def drawn_fields(answer: Answer) -> np.ndarray:
    """One field of each condition: the first sample, or the mean of a method without a distribution.

    Those that failed are not numbers, so that no score can take them for fields.
    """
    forecasts = answer.forecasts
    drawn = forecasts.mean if forecasts.samples is None else forecasts.samples[:, 0]
    return np.where(forecasts.ok.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, np.nan)


def reference_set(answer: Answer) -> FieldSet:
    """The data of a split."""
    split = answer.bench.splits[answer.split]
    return FieldSet(split.truth, split.condition)


FOLLOWED = ("sampling.flow_method", "dpm")


def followed_flow_rows(run: Run) -> None:
    """The flow of `flow_matching` once more, followed accurately in as many calls, see `diffusion.flow.as_denoiser`."""
    if "flow_matching" in run.context.methods:
        other = run.changed([FOLLOWED])
        for split, answer in other.answers("flow_matching").items():
            scored = {metric: value for score in run.context.study.scores for metric, value in score(answer).items()}
            other.record("flow_matching", split, scored, len(answer.truth))


def reference_rows(run: Run) -> None:
    """Scores of other examples of the data: the floor that sampling leaves."""
    equations, sets = run.bench.task.problem, run.bench.world
    test = sets[run.context.asked]
    count = min(len(test.fields), len(sets["train"].fields))
    other = FieldSet(*(part[:count] for part in sets["train"]))
    rows = physics_scores(equations, test) | distance_scores(equations, other, test)
    run.record("reference", run.context.asked, rows, len(test.fields))
