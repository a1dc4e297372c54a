"""How far samplers are from the posterior where it is known: `python -m experiments.exact_worlds`, minutes a seed.

Nothing is trained: networks are the exact denoiser and velocity of their world, so that what is missed is the sampler's
own. Two worlds are asked about a linear observation, a Gaussian and a mixture of three; in a third, a Gaussian of the
plane, samples are brought onto an ellipse.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments.study.command import main
from experiments.study.study import Answer, Bench, Context, Run, Shown, Split, Study, Variant
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement
from phdme_jax.diffusion.exact import (
    ExactParams,
    Mixture,
    draw_from,
    make_mixture,
    moments,
    observed_mixture,
    rescaled,
)
from phdme_jax.methods import presets
from phdme_jax.methods.base import Examples, Fitted, Method, Task, stage_key
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.presets import ANSWERING, INFORMED, equation_groups
from phdme_jax.methods.ranges import Range
from phdme_jax.methods.table import lineage
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, unconditional

CASES = ("gaussian", "mixture", "ellipse")
SHAPES = {"gaussian": (2, 2), "mixture": (2, 2), "ellipse": (2,)}
METHODS = ("diffusion", "flow_matching", "generate_then_solve", "cocogen")
ANSWERS = (
    "dps",
    "sda",
    "moment_matched",
    "diffusionpde",
    "residual_guidance",
    "eci",
    "pcfm",
    "matched_flow",
    "d_flow",
    "kriging",
)
SEEN = 0  # number of the flattened fields that is observed
TOTAL = 1.0  # that the equation asks for
AXES = (1.6, 0.7)  # half axes of the ellipse
BINS = 40
RATIOS = (0.1, 0.3, 1.0, 3.0)  # of noise to example, that Jensen's gap is shown at
ONWARD = (("answers.anchored", False),)
UNBOUNDED = (("answers.variance_bound", 0.0),)
CORRECTED = (("answers.langevin_corrections", 16), ("answers.langevin_step", 0.2))


def _size(count: int, num_train: int, steps: int) -> Callable[[], dict[str, Any]]:
    sampling = {"num_steps": steps, "sampler": "dpm", "spacing": "log_snr", "flow_steps": steps, "flow_method": "dpm"}
    return lambda: {
        "data": {"num_train": num_train, "kinds": ("linear", "linear")},
        "samples": {"count": count},
        "questions": {"noise": 0.4},
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        **equation_groups("edm", sampling, flow_predicts="edm"),
        "answers": {**ANSWERING, "push": 0.2, "iterations": 2},
        "residual_guidance": {"num_own": 64, "num_calls": 12},
    }


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method; ECI and PCFM also on from where they are; SDA also without a bound; guidance corrected."""
    del config
    for method in (*METHODS, *ANSWERS):
        yield Variant(method)
    for method in ("eci", "pcfm"):
        yield Variant(method, ONWARD)
    for changes in (UNBOUNDED, CORRECTED, (*UNBOUNDED, *CORRECTED)):
        yield Variant("sda", changes)
    yield Variant("moment_matched", CORRECTED)


# ---- worlds


def make_world(case: str, seed: int) -> Mixture:
    """Fields of a case, flattened: variances about one, correlated; of the mixture the components lie apart."""
    generator = np.random.default_rng((seed, CASES.index(case)))
    number, count = int(np.prod(SHAPES[case])), 3 if case == "mixture" else 1
    factors = generator.normal(size=(count, number, number)) / np.sqrt(number)
    spread = (1.0 if count == 1 else 0.3) * (factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(number))
    means = generator.normal(size=(count, number)) * (0.3 if count == 1 else 1.0)
    weights = np.arange(1.0, count + 1.0)
    return make_mixture(*map(jnp.asarray, (weights / weights.sum(), means, spread)))


def _total_residual(fields: Array, condition: Array) -> Residuals:
    del condition
    return {"total": jnp.sum(fields) - TOTAL}


def _onto_total(fields: Array, condition: Array) -> Array:
    return fields - _total_residual(fields, condition)["total"] / fields.size


def _ellipse_residual(fields: Array, condition: Array) -> Residuals:
    del condition
    return {"ellipse": jnp.sum((fields / jnp.asarray(AXES, fields.dtype)) ** 2) - 1.0}


def onto_ellipse(fields: Array, condition: Array) -> Array:
    """The nearest point: x_i = p_i a_i^2 / (a_i^2 + s), s the largest root of sum x_i^2 / a_i^2 = 1, by halving."""
    del condition
    squares = jnp.asarray(AXES, fields.dtype) ** 2
    low, high = -jnp.min(squares), jnp.max(squares) * (1.0 + jnp.sum(fields**2))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        outside = jnp.sum(squares * (fields / (squares + middle)) ** 2) > 1.0
        return jnp.where(outside, middle, ends[0]), jnp.where(outside, ends[1], middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (low, high))
    return fields * squares / (squares + high)


def world_equations(config: ConfigDict, case: str) -> Equations:
    """What fields of a case may be asked to obey beside what is observed."""
    del config
    curved = case == "ellipse"
    return Equations(
        name=case,
        grid=Grid((), ()) if curved else Grid((2,), (1.0,)),
        fields=("left", "right"),
        units=("1", "1"),
        residual=_ellipse_residual if curved else _total_residual,
        draw=Bound(_draw_fields, case),
        resolve=onto_ellipse if curved else _onto_total,
        num_solution=2,
    )


def _draw_fields(case: str, key: Array) -> Any:
    return unconditional(draw_from(make_world(case, 0), key).reshape(SHAPES[case]))


def obeying(world: Mixture) -> Mixture:
    """The world given that its fields have the total."""
    row = jnp.ones((1, world.means.shape[-1]))
    return observed_mixture(world, row, jnp.full(1, TOTAL), 0.0)


def seeing(world: Mixture, value: float, noise: float) -> Mixture:
    """The world given an observation."""
    row = jnp.eye(world.means.shape[-1])[SEEN : SEEN + 1]
    return observed_mixture(world, row, jnp.full(1, value), noise**2)


# ---- the bench


def world_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed: its world, what is observed, and exact networks in the place of trained ones."""
    world, key, shape = make_world(case, seed), jax.random.fold_in(jax.random.key(17), seed), SHAPES[case]
    equations, options = world_equations(config, case), config.to_dict()
    options |= {"network": {"name": "exact"}, "stages": {"diffusion": (), "flow": ()}}
    fields = draws(world, config.data.num_train, stage_key(key, "starts")).reshape(-1, *shape)
    empty = np.zeros((len(fields), *shape[:-1], 0))
    splits = {context.asked: Split(fields[:1], empty[:1], num_samples=config.samples.count)}
    mean, covariance = moments(world)
    value = float(mean[SEEN] + jnp.sqrt(covariance[SEEN, SEEN]))
    if case != "ellipse":
        mask = (np.arange(fields[0].size) == SEEN).astype(float).reshape(1, *shape)
        for name, noise in (("exact", 0.0), ("noisy", config.questions.noise)):
            question = Question(empty[:1], mask, value * mask, np.full((1, shape[-1]), noise))  # type: ignore[arg-type]
            splits[name] = Split(fields[:1], question, questions=True, num_samples=config.samples.count)
    return Bench(
        task=Task(equations, lambda: Examples(fields, empty), lambda key, count: empty[:count], key),
        options=options,
        splits=splits,
        key=key,
        sample_key=lambda split, method: stage_key(key, "samples", lineage(method.name)[0].stream),
        world=(world, value),
        adapted=partial(with_exact_network, world, case),
    )


def with_exact_network(world: Mixture, case: str, method: Method, fitted: Fitted) -> Fitted:
    """A fitted method whose network answers with the world in normalised units."""
    del method
    params = fitted.params
    if not isinstance(params.network, ExactParams):
        return fitted
    shift, scale = (jnp.broadcast_to(leaf, SHAPES[case]).ravel().astype(float) for leaf in params.fields)
    told = world if case == "ellipse" else obeying(world)
    network = ExactParams(*(rescaled(one, shift, scale) for one in (world, told)))
    network = jax.tree.map(lambda leaf: leaf.astype(params.fields.scale.dtype), network)
    return fitted._replace(params=params._replace(network=network))


def draws(world: Mixture, count: int, key: Any) -> np.ndarray:
    """Examples of a world, (count, number)."""
    return np.asarray(jax.jit(jax.vmap(partial(draw_from, world)))(jax.random.split(key, count)))


# ---- scores


def moment_errors(samples: np.ndarray, law: Mixture) -> dict[str, Measurement]:
    """What the moments of samples (count, number) miss of a law's.

    mean_error = |mean - mean*| / sqrt(trace C*),   covariance_error = |C - C*| / |C*|  (Frobenius)
    """
    mean, covariance = map(np.asarray, moments(law))
    of_mean = np.linalg.norm(samples.mean(axis=0) - mean) / np.sqrt(np.trace(covariance))
    of_covariance = np.linalg.norm(np.cov(samples.T) - covariance) / np.linalg.norm(covariance)
    return {"mean_error": _finite(of_mean), "covariance_error": _finite(of_covariance)}


def _finite(value: Any) -> Measurement:
    return Measurement(float(value) if np.isfinite(value) else None)


def laws_of(run: Run, split: str) -> dict[str, Mixture]:
    """What may be asked of a split: the observation alone, and the equation too; by the suffix of the metrics."""
    world, value = run.bench.world
    if split in ("exact", "noisy"):
        world = seeing(world, value, run.config.questions.noise if split == "noisy" else 0.0)
    return {"": world, "_obeying": obeying(world)}


def on_ellipse(law: Mixture) -> dict[str, np.ndarray]:
    """Shares of the angles of a world's points given that they lie on the ellipse, by bins.

    Given R = 0 the density along the curve is p / |grad R| (co-area); "_surface" leaves the factor out.
    """
    fine = (np.arange(100 * BINS) + 0.5) / (100 * BINS) * 2 * np.pi - np.pi
    points = np.stack([AXES[0] * np.cos(fine), AXES[1] * np.sin(fine)], axis=-1)
    speed = np.hypot(AXES[0] * np.sin(fine), AXES[1] * np.cos(fine))
    steep = np.linalg.norm(2 * points / np.square(AXES), axis=-1)
    apart = points - np.asarray(law.means[0])
    density = np.exp(-0.5 * np.sum(apart @ np.linalg.inv(np.asarray(law.covariances[0])) * apart, axis=-1))
    shares = {"": density * speed / steep, "_surface": density * speed}
    return {name: found.reshape(BINS, -1).sum(axis=1) / found.sum() for name, found in shares.items()}


def angle_errors(points: np.ndarray, law: Mixture) -> dict[str, Measurement]:
    """Total variation between the angles of points (count, 2) and those of the world given the ellipse."""
    angle = np.arctan2(points[:, 1] / AXES[1], points[:, 0] / AXES[0])
    found = np.histogram(angle, BINS, (-np.pi, np.pi))[0] / len(angle)
    return {f"angle_error{name}": _finite(0.5 * np.abs(found - s).sum()) for name, s in on_ellipse(law).items()}


def world_scores(answer: Answer) -> Mapping[str, Measurement]:
    """Errors of moments, or of angles on the ellipse; and what is left of the residual."""
    assert answer.forecasts.samples is not None
    samples, run = answer.forecasts.samples[0], answer.run
    residual = partial(answer.bench.task.problem.residual, condition=None)
    left = jax.vmap(lambda fields: next(iter(residual(fields).values())))(samples)
    rows = {"residual_rms": _finite(jnp.sqrt(jnp.mean(left**2))), "nfe": Measurement(answer.fitted.model.num_calls)}
    flat = samples.reshape(len(samples), -1)
    if run.case == "ellipse":
        return rows | angle_errors(flat, run.bench.world[0])
    for suffix, law in laws_of(run, answer.split).items():
        rows |= {f"{name}{suffix}": found for name, found in moment_errors(flat, law).items()}
    return rows


def reference_rows(run: Run) -> None:
    """Errors of as many exact draws: what the number of samples leaves."""
    count, key = run.config.samples.count, stage_key(run.bench.key, "generated")
    for split in run.bench.splits:
        if run.case == "ellipse":
            shares = on_ellipse(run.bench.world[0])
            generator = np.random.default_rng(run.seed)
            found = {name: generator.multinomial(count, share) / count for name, share in shares.items()}
            rows = {
                f"angle_error{name}": _finite(0.5 * np.abs(found[name] - share).sum()) for name, share in shares.items()
            }
        else:
            laws = laws_of(run, split)
            pairs = {suffix: moment_errors(draws(law, count, key), law) for suffix, law in laws.items()}
            rows = {f"{name}{suffix}": one for suffix, pair in pairs.items() for name, one in pair.items()}
        run.record("reference", split, rows, count)


def jensen_rows(run: Run) -> None:
    """Jensen's gap of the residual at the denoiser's mean, by the ratio of noise, exact for residuals of second order.

    E[R(x0) | x] - R(E[x0 | x]) = trace(H Cov[x0 | x]) / 2,   H the second derivatives of R
    """
    (world, _), shape, count = run.bench.world, SHAPES[run.case], min(run.config.samples.count, 4000)
    problem, key = run.bench.task.problem, stage_key(run.bench.key, "costs")

    def residual(point: Array) -> Array:
        return next(iter(problem.residual(point.reshape(shape), jnp.zeros((*shape[:-1], 0))).values()))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None))
    def gap(clean: Array, noise: Array, ratio: Array) -> tuple[Array, Array]:
        size = len(clean)
        mean, covariance = moments(observed_mixture(world, jnp.eye(size), clean + ratio * noise, ratio**2))
        found = 0.5 * jnp.sum(jax.hessian(residual)(mean) * covariance)
        return found, residual(mean) + found

    clean = jnp.asarray(draws(world, count, key))
    noise = jax.random.normal(jax.random.fold_in(key, 1), clean.shape)
    for ratio in RATIOS:
        gaps, expected = gap(clean, noise, jnp.asarray(ratio))
        rows = {"jensen_gap": _finite(jnp.sqrt(jnp.mean(gaps**2)))}
        rows["residual_rms_expected"] = _finite(jnp.sqrt(jnp.mean(expected**2)))
        run.changed((("noise_ratio", ratio),)).record("diffusion", run.context.asked, rows, count)


def world_section(shown: Shown) -> Sequence[Section]:
    """What the rows mean."""
    text = (
        "Errors of mean and covariance against the closed form, the mean's in standard deviations. exact and noisy: "
        "one number is observed. obeying: the target is that the fields have the total besides, which the methods "
        "that are shown the residual aim at. The reference is as many exact draws."
    )
    angles = (
        "Total variation of the angles on the ellipse, in 40 bins, from those given that the points lie on it; surface "
        "leaves out the co-area factor. Jensen's gap: of the residual at the denoiser's mean, by the ratio of noise."
    )
    metrics = ("mean_error", "covariance_error", "mean_error_obeying", "covariance_error_obeying")
    if shown.run.case == "ellipse":
        return [Section("On an ellipse", angles, (), ("angle_error", "angle_error_surface", "jensen_gap"))]
    return [Section(f"Against the closed form: {shown.run.case}", text, (), metrics)]


STUDY = Study(
    name="exact_worlds",
    title="Samplers in worlds with exact answers",
    sizes={"smoke": _size(500, 256, 12), "laptop": _size(5000, 4096, 60)},
    problem=world_equations,
    bench=world_bench,
    scores=(world_scores,),
    sections=(world_section,),
    metrics=("mean_error", "covariance_error", "angle_error"),
    cases=CASES,
    methods=(*METHODS, *ANSWERS),
    variants=make_variants,
    about=lambda config: f"Exact networks, {config.samples.count} samples of each answer.",
    ranges=presets.RANGES | {"num_train": Range(2), "samples.count": Range(8)},
    extras=(reference_rows, jensen_rows),
    trial_methods=("diffusion", "generate_then_solve", "moment_matched"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
