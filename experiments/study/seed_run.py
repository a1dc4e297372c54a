"""One seed of a study of fields: its data, learned energies, rollouts and generators, made when first asked for."""

import dataclasses
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.fit import STARTS_FROM_FRAMES
from experiments.data.fields import FieldData, frame_times, load_or_make
from experiments.evaluation import forecasts as evaluation
from experiments.report import fields as field_figures
from experiments.study.command import RunContext
from phdme_jax.files import config_digest
from phdme_jax.forecasting.inputs import draw_initial_states
from phdme_jax.gp import independent
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.baselines import field_networks
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.legacy import Method
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field


@dataclasses.dataclass(frozen=True)
class Problem:
    """A system as its study sees it.

    Attributes:
      system: name in the registry and in results.
      title: of the report.
      labels: how axes are called.
      inversion: how the two-process baseline inverts the operator; None leaves that method out.
    """

    system: str
    title: str
    labels: field_figures.FieldLabels
    inversion: independent.Inversion | None


def learner_system(problem: Problem, config: Any, **changes: Any) -> System:
    """The true energy on the learner's grid, of which learners use the structure only.

    The same record for the same arguments, so that compiled functions are found again.
    """
    options = {**config.system, "num_points": config.data.num_points, **config.structure, **changes}
    return _system(problem.system, tuple(sorted(options.items())))


@lru_cache
def _system(name: str, options: tuple[tuple[str, Any], ...]) -> System:
    return make_system(name, **dict(options))


class SeedRun:
    """Everything one seed shares between methods, made when first asked for."""

    def __init__(self, problem: Problem, context: RunContext, seed: int, data_folder: Path | None = None) -> None:
        self.problem, self.context, self.seed, self.config = problem, context, seed, context.config
        self.times = frame_times(self.config.data)
        self.system = learner_system(problem, self.config)
        self.structure = self.system.structure
        self.data: FieldData = load_or_make(problem.system, self.config, seed, data_folder or context.workdir)
        self.key = jax.random.fold_in(jax.random.key(7), seed)
        self.normaliser = fit_normaliser(jnp.asarray(self.data.observed, jnp.float32))
        self._priors: dict[str, priors.Prior] = {}
        self._rollouts: dict[str, priors.Rollouts] = {}

    def prior(self, energy: str = "posterior") -> priors.Prior:
        """The fitted energy, general or quadratic."""
        if energy not in self._priors:
            options = dict(self.config.prior)
            if energy == "quadratic":
                options |= {"shapes": ("quadratic",) * len(self.structure.fields), "pair": 0}
            self._priors[energy] = priors.fit_prior(self.structure, self.data.observed, self.times, **options)
        return self._priors[energy]

    def independent_rollouts(self, initial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rollouts of the two-process baseline: rates by local polynomials, damping known.

        The published study has 81 sites on its one trajectory, spread over all frames; so has each trajectory here.
        """
        observed = jnp.asarray(self.data.observed)
        smoothed, rates = jax.vmap(lambda x: independent.local_polynomial_rates(x, self.times))(observed)
        num, frames, points, fields = observed.shape
        flat = [jnp.reshape(array, (num * frames, points, fields)) for array in (smoothed, rates)]
        each = np.asarray(independent.published_sites(frames, points))
        sites = np.concatenate([each + np.array([frames * index, 0]) for index in range(num)])
        spacing, inversion = self.structure.grid.spacing[0], self.problem.inversion
        assert inversion is not None
        learn = jax.jit(lambda x, r, s: independent.fit_independent(x, r, s, spacing, inversion))
        fitted = learn(*flat, jnp.asarray(sites))
        values = parameter_values(self.system, jnp.float64)
        flow, substeps = self.structure.flow, self.config.prior.substeps

        @jax.jit
        @jax.vmap
        def roll(state: Any) -> Any:
            return independent.roll_out_independent(flow, fitted, values, state, jnp.asarray(self.times), substeps)

        return priors.in_chunks(roll, 32, np.asarray(initial, np.float64))

    def rollout_starts(self, key: Any) -> np.ndarray:
        """Initial states of the rollouts: from the family that test states come from, or from the observed frames."""
        options = self.config.rollouts
        if options.initial == "observed":
            return draw_initial_states(self.structure, self.data.observed, options.count, key, **STARTS_FROM_FRAMES)
        keys = jax.random.split(key, options.count)
        return np.asarray(jax.jit(jax.vmap(self.system.initial_state(self.config.data.family)))(keys))

    def rollouts(self, energy: str = "posterior") -> priors.Rollouts:
        """Rollouts of posterior samples, or of the true energy, from drawn initial states, cached in the run folder."""
        if energy not in self._rollouts:
            name = "rollouts" if energy == "posterior" else f"rollouts_{energy}"
            path = self.context.workdir / "data" / f"{name}_{self.seed}.npz"
            kept = priors.load_rollouts(path)
            if kept is None:
                initial = self.rollout_starts(jax.random.fold_in(self.key, 1))
                kept = self._roll(energy, initial, jax.random.fold_in(self.key, 2))
                priors.save_arrays(path, kept._asdict())
            self._rollouts[energy] = kept
        return self._rollouts[energy]

    def _roll(self, energy: str, initial: np.ndarray, key: Any) -> priors.Rollouts:
        if energy == "posterior":
            return priors.make_rollouts(self.prior(), initial, self.times, key)
        states = evaluation.true_rollout(self.system, initial, self.times, self.config.prior.substeps)
        # nothing is uncertain about the true energy
        weights = priors.residual_weight(np.ones_like(states[:, 1:]), states, self.times)
        narrow = states.astype(np.float32)
        return priors.Rollouts(narrow, narrow, weights, 0.0)

    def example(self, states: np.ndarray, weights: Any, means: Any) -> Example:
        """Normalised training arrays."""
        scale = np.asarray(self.normaliser.scale)
        state: Any = (states / scale).astype(np.float32)
        if weights is None:
            weights = np.ones((state.shape[0], state.shape[1] - 1, *state.shape[2:]), np.float32)
        mean: Any = np.repeat(state[:, :1], state.shape[1], axis=1) if means is None else means / scale
        return Example(state, weights, mean.astype(np.float32))

    def observed_example(self, method: Method) -> Example:
        """The observed trajectories as training arrays; their residual is weighted where the method has one."""
        if method.data == "rollouts" or not method.physics:
            return self.example(self.data.observed, None, None)
        states = self.data.observed.astype(np.float32)
        return self.example(self.data.observed, priors.trajectory_weights(self.prior(), states, self.times), None)

    def generator(self, method: Method) -> generators.Generator:
        """The method's trained generator."""
        config = self.config
        oracle = method.energy == "true"
        learned = not oracle and (method.data == "rollouts" or method.mean == "rollout" or method.physics)
        empty = generators.make_generator(
            method, self.prior() if learned else None, self.structure, self.times,
            config.network.to_dict(), config.sampling.to_dict(), self._true_dynamics() if oracle else None,
        )  # fmt: skip
        observed = self.observed_example(method)
        if method.data == "rollouts":
            rolled = self.rollouts(method.energy)
            synthetic = self.example(rolled.states, rolled.weights, rolled.means)
            if method.mean == "rollout":
                means: Any = generators.conditional_mean(
                    generators.with_arrays(empty, normaliser=self.normaliser), self.data.observed[:, 0]
                )
                observed = observed._replace(mean=means)
        else:
            synthetic = observed
        return generators.train_generator(
            empty,
            self.structure,
            synthetic,
            observed if method.data == "rollouts" else None,
            self.normaliser,
            training=config.training.to_dict(),
            physics=config.physics.to_dict(),
            key=self.method_key(method),
            digest=config_digest(config.to_dict()),
            workdir=self.training_folder(method),
        )

    def method_key(self, method: Method) -> Any:
        """Root key of a method's training."""
        return jax.random.fold_in(self.key, 100 + method.stream)

    def training_folder(self, method: Method) -> Path:
        """Where a method's training is kept."""
        return self.context.workdir / "training" / f"{method.name}_{self.seed}"

    def network(self, method: Method) -> field_networks.FieldNetwork:
        """The method's network, trained on the observed trajectories."""
        options, init_train = self.config.baselines.to_dict(), jax.random.split(self.method_key(method))
        network = field_networks.make_network(
            method.name, self.structure, self.times, self.normaliser, options, init_train[0]
        )
        digest = config_digest(self.config.to_dict())
        folder = self.training_folder(method)
        trainer = generators.StageTrainer(method.name, 0.0, options["ema_decay"], digest, folder, matrix_steps=False)
        stages, noise = options["stages"][method.name], options["start_noise"]
        observed = self.observed_example(method)
        return field_networks.train_network(network, observed, self.times, stages, noise, init_train[1], trainer)

    def _true_dynamics(self) -> generators.Dynamics:
        field = partial(vector_field, self.structure, self.system.density)
        values, substeps = parameter_values(self.system, jnp.float32), self.config.prior.substeps
        return generators.Dynamics(
            lambda state: field(state, values),
            lambda initial: evaluation.true_rollout(self.system, initial, self.times, substeps),
        )
