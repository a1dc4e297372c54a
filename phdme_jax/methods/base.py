"""The protocol: a method is a function that fits, maybe after a teacher; what it leaves is a model of pure functions.

    fitted = method.fit(task, options, host, teacher, key)
    prepared = fitted.model.prepare(fitted.params, condition)                       once a condition
    fields = fitted.model.draw(fitted.params, prepared, fitted.model.latent(key), key)      once a sample

Static records (`Problem`, `Task`, `Model`, `Method`) hold functions, numbers and names; parameters are pytrees of
arrays. Everything that computes is a pure function of one example; callers `vmap`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.files import InputError
from phdme_jax.numerics.arrays import static_times
from phdme_jax.systems.energy.base import Structure, constant_parts

Times = tuple[float, ...]
Values = Any  # arrays of JAX or of NumPy, on their way to a device
Options = Mapping[str, Any]  # groups of options, plain nested mappings; a method takes the groups it knows
Denoise = Callable[[Array, Array], Array]  # (noisy, t) -> clean

# where the shared random draws of a seed go, by name
STREAMS = {
    "starts": 1,
    "rollouts": 2,
    "samples": 3,
    "costs": 4,
    "pairs": 20,
    "questions": 30,
    "method": 100,
    "generated": 200,
}


def stage_key(key: Key[Array, ""], stage: str, index: int = 0) -> Key[Array, ""]:
    """The key of a stage of a seed's work, told apart by name.

    Args:
      key: root key of the seed.
      stage: a key of `STREAMS`.
      index: tells apart uses of one stage, such as the methods by their streams.
    Returns:
      the key.
    Raises:
      ValueError: unknown stage.
    """
    if stage not in STREAMS:
        raise ValueError(f"expected a stage among {sorted(STREAMS)}, got {stage!r}")
    return jax.random.fold_in(key, STREAMS[stage] + index)


def unusual_draws() -> dict[str, Any]:
    """Variables of JAX's environment that change random draws, where they are set otherwise than JAX has them.

    What a run keeps belongs to its draws: they are part of the record that the run is known by.
    """
    usual = {"default_prng_impl": "threefry2x32", "threefry_partitionable": True, "random_seed_offset": 0}
    here = {name: getattr(jax.config, f"jax_{name}") for name in usual}
    return {f"JAX_{name.upper()}": value for name, value in here.items() if value != usual[name]}


class Start(NamedTuple):
    """Condition of a system that moves.

    Attributes:
      state: initial state as it is told to the method, companions (fields that never change) included,
        (*grid, field), physical units.
      inputs: u of the ports at the task's times, (time, port); no columns without ports.
      errors: possible errors of the told state, (error, *grid, field), of which a sample takes one; None where the
        state is exact.
    """

    state: Float[Values, "*grid field"]
    inputs: Float[Values, "time port"]
    errors: Float[Values, "error *grid field"] | None = None


class Examples(NamedTuple):
    """What a method may learn from, leaves with a leading sample axis; physical units.

    Attributes:
      fields: trajectories (sample, time, *grid, field), or fields without time (sample, *grid, field).
      condition: a `Start` each where there is time; given channels (sample, *grid, channel), maybe none, else.
      times: of the frames of the trajectories, empty without time; they may differ from those of forecasts.
    """

    fields: Values
    condition: PyTree
    times: Times = ()


class Problem(Protocol):
    """A system with an energy, or known equations.

    Attributes:
      name: in results.
      grid: static grid.
      fields: names of the fields, in order.
      units: of each.
      offers: names of its parts that are there and that a method may need: "structure", "true_energy", "inversion",
        "residual", "map", "resolve", ...
    """

    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def offers(self) -> frozenset[str]: ...


@dataclass(frozen=True, eq=False)
class Task:
    """All that a method may learn from.

    Attributes:
      problem: the system or the equations; a learner uses no part of it but those its method needs.
      train: what was observed.
      starts: (key, count) -> conditions to roll out from, or to distil on, leaves with a leading axis.
      key: of random draws that methods share, such as the rollouts.
      times: of the frames of forecasts; empty without time.
      companions: how many of the problem's last fields never change along a trajectory and ride along as a condition.
      energy: (options, key, quadratic) -> `Fitted` with `Dynamics`, where a study has an instrument of its own that
        fits the energy, general or quadratic; None leaves it to the weak-form rows of the examples.
    """

    problem: Any
    train: Callable[[], Examples]
    starts: Callable[[Key[Array, ""], int], PyTree]
    key: Key[Array, ""]
    times: Times = ()
    companions: int = 0
    energy: Callable[[Options, Array, bool], Any] | None = None

    def __post_init__(self) -> None:
        """Takes times that are an array or a list."""
        object.__setattr__(self, "times", static_times(self.times))


@dataclass(frozen=True)
class Dynamics:
    """What an energy says of the motion: pure functions of its parameters and one example, physical units.

    Attributes:
      rate: (params, state (*grid, field)) -> rate of the mean energy; of the dtype of the state.
      rollout: (params, start, times, substeps) -> `gp.sampling.Rollout` of the mean energy; times and substeps are
        static, and the inputs of the start are those at these times.
      sample: (params, start, key, times, substeps) -> Rollout of an energy drawn from the posterior.
      variance: (params, trajectory (time, *grid, field), times) -> posterior variance of the residual (time - 1, *grid,
        field); None where nothing is uncertain.
      substeps: of rollouts between frames that the fit asks for, see `PriorOptions`.
      efforts: (params, states (*points, field)) -> mean and standard deviation of the efforts there; None where nothing
        is uncertain.
    """

    rate: Callable[[PyTree, Array], Array]
    rollout: Callable[[PyTree, Start, Times, int], Any]
    sample: Callable[[PyTree, Start, Array, Times, int], Any]
    variance: Callable[[PyTree, Array, Times], Array] | None
    substeps: int
    efforts: Callable[[PyTree, Array], tuple[Array, Array]] | None = None


@dataclass(frozen=True)
class Model:
    """How a fitted method answers: pure functions of one example, physical units.

    Attributes:
      prepare: (params, condition) -> what all samples of a condition share.
      draw: (params, prepared, latent, key) -> fields; (time, *grid, field) where there is time. Not finite where a
        sample failed.
      latent: key -> what a sample is made of; None for a method without a distribution, whose `draw` is not called.
      mean: (params, prepared) -> fields that samples are drawn around; None where there is none.
      finish: (fields, condition) -> fields, applied to finished fields one example at a time in double precision, such
        as a solution computed anew; None for nothing.
      denoise: (params, prepared) -> denoiser, what guidance transforms; None for what has none.
      sample: (denoiser, latent, key) -> normalised fields; None for what has none.
      floor: params -> size of each field (field,) below which a spread of samples says nothing; None leaves it to a
        hundredth of the field's own size.
      times: of the frames that it draws; empty without time.
      num_calls: calls of the network a sample, or steps of an integrator.
      num_backward: gradients through the network a sample.
      dynamics: what its energy says; None without one.
    """

    prepare: Callable[[PyTree, PyTree], PyTree]
    draw: Callable[[PyTree, PyTree, Any, Array], Array]
    latent: Callable[[Array], Any] | None = None
    mean: Callable[[PyTree, PyTree], Array] | None = None
    finish: Callable[[Array, Array], Array] | None = None
    denoise: Callable[[PyTree, PyTree], Denoise] | None = None
    sample: Callable[[Denoise, Array, Array], Array] | None = None
    floor: Callable[[PyTree], Array] | None = None
    times: Times = ()
    num_calls: int = 0
    num_backward: int = 0
    dynamics: Dynamics | None = None


def mean_model(prepare: Any, times: Times) -> Model:
    """A model without a distribution, whose forecasts `prepare` makes: (params, start) -> fields."""
    return Model(
        prepare=prepare,
        draw=lambda params, prepared, latent, key: prepared,
        mean=lambda params, prepared: prepared,
        times=times,
    )


class Fitted(NamedTuple):
    """What a fit leaves.

    Attributes:
      model: static.
      params: its arrays.
      seconds: of run time by stage, compilation apart; "fit" is the energy, all else training.
      found: numbers that the fit found, by name: dissipation parameters, and metrics such as rejection_rate.
      notes: sentences that the user should read.
    """

    model: Model
    params: PyTree
    seconds: Mapping[str, float]
    found: Mapping[str, float] = {}
    notes: tuple[str, ...] = ()


@runtime_checkable
class Host(Protocol):
    """What a fit is handed beside its data: where it trains and keeps what takes long, without knowing folders."""

    def train(
        self,
        stage: str,
        loss: Callable[[PyTree, PyTree, Array], tuple[Array, dict[str, Array]]],
        params: PyTree,
        data: PyTree,
        key: Array,
        *,
        steps: int,
        batch: int,
        rate: float,
        ema_decay: float,
        matrix_steps: bool = False,
        real: PyTree | None = None,
        real_fraction: float = 0.0,
    ) -> tuple[PyTree, float]:
        """Averaged parameters after a stage of training, and its seconds; resumes where it was killed."""
        ...

    def keep(self, name: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Arrays made once a seed and kept, shared by all methods that ask for the name."""
        ...


Fit = Callable[[Task, Options, Host, Fitted | None, Array], Fitted]


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
      name: in results.
      summary: one line for reports.
      stream: number of the method's random draws, its own among the methods that train on the same kind of problem.
      fit: (task, options, host, teacher, key) -> Fitted; `teacher` is the fitted method of that name, or None.
      source: where it was published; empty for ours.
      teacher: fitted first and handed to `fit`; what it has learned is shared, never learned again.
      needs: parts that a problem must offer.
      needs_instead: other parts, that serve as well where the fit knows both kinds of problem; none where empty.
      scope: whether a study runs it "always", in "full" comparisons alone and not where a study is only tried, or where
        it is "named" alone, as one that changes a single thing of another and draws as that does.
      questions: whether its condition is a `methods.equations.questions.Question`.
      own: dotted keys of options that it and what it teaches read alone: what others have trained is kept when these
        change.
    """

    name: str
    summary: str
    stream: int
    fit: Fit = field(repr=False)
    source: str = ""
    teacher: str | None = None
    needs: frozenset[str] = frozenset()
    needs_instead: frozenset[str] = frozenset()
    scope: Literal["always", "full", "named"] = "always"
    questions: bool = False
    own: tuple[str, ...] = ()

    def refusal(self, problem: Any) -> str | None:
        """Why the method does not fit a problem, in one sentence, or None."""
        missing = sorted(self.needs - problem.offers)
        if not missing or (self.needs_instead and self.needs_instead <= problem.offers):
            return None
        words = ", ".join(name.replace("_", " ") for name in missing)
        return f"{self.name} needs {words}, which {problem.name} does not offer; leave it out of --methods"


def refuse(method: Method, problem: Any) -> None:
    """Raises InputError where a method does not fit a problem."""
    reason = method.refusal(problem)
    if reason is not None:
        raise InputError(reason)


class Normaliser(NamedTuple):
    """Units of the fields; physical = centre + scale x normalised.

    Attributes:
      scale: root mean square of each field over the training data, constant parts left out, shape (field,).
      centre: mean of the constant parts, see `constant_parts`; zero for most fields, shape (field,).
    """

    scale: Float[Array, "field"]
    centre: Float[Array, "field"]

    def normalised(self, states: Values) -> Values:
        """Fields (*axes, field) in these units, of the type of the states where that is the wider."""
        return (states - self.centre) / self.scale

    def physical(self, values: Values) -> Values:
        """Fields (*axes, field) in physical units."""
        return values * self.scale + self.centre


def fit_normaliser(states: Values, structure: Structure) -> Normaliser:
    """Units of the fields of a structure from states (*batch, *grid, field); of their type."""
    constant, everywhere = constant_parts(structure, np.asarray(states)), tuple(range(states.ndim - 1))
    scale = jnp.sqrt(jnp.mean((states - constant) ** 2, axis=everywhere))
    return Normaliser(scale, jnp.mean(jnp.asarray(constant), axis=everywhere))
