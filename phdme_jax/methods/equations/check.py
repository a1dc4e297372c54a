"""Whether options can be built, by abstract evaluation: nothing is computed, but all that does not fit is told."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from phdme_jax.methods.base import Examples, Fit, Fitted, Options, Task
from phdme_jax.methods.equations.questions import Question
from phdme_jax.systems.equations.base import Equations
from phdme_jax.training.loop import LoopOptions


class _Untrained:
    """A host that trains nothing, but looks at what it would train."""

    def train(self, stage: str, loss: Any, params: PyTree, data: PyTree, key: Array, **numbers: Any) -> Any:
        """The parameters as they came, after the loss of one example in the abstract."""
        del stage
        LoopOptions(numbers["batch"], numbers["steps"], "", numbers["ema_decay"])
        jax.eval_shape(loss, params, jax.tree.map(lambda leaf: leaf[0], data), key)
        return params, 0.0

    def keep(self, name: str, make: Any) -> Any:
        """What is kept is made."""
        del name
        return make()


def check(problem: Equations, options: Options, fits: Sequence[Fit], questions: bool = False) -> None:
    """Draw an example, fit to it and draw a sample, all in the abstract.

    Args:
      problem: the equations.
      options: groups of the study.
      fits: that of the method, after those of its teachers, the first one's first.
      questions: whether the method answers questions.
    Raises:
      ValueError: what a part of them does not know.
    """

    def whole(key: Array) -> Array:
        sample = problem.draw(key)
        examples = Examples(sample.fields[None], sample.condition[None])
        task = Task(problem, lambda: examples, lambda key, count: examples.condition, key)
        fitted: Fitted | None = None
        for fit in fits:
            fitted = fit(task, options, _Untrained(), fitted, key)
        assert fitted is not None
        model, params = fitted.model, fitted.params
        condition: Any = sample.condition
        if questions:
            nothing = jnp.zeros_like(sample.fields)
            condition = Question(sample.condition, nothing, nothing, nothing.reshape(-1, nothing.shape[-1])[0])
        prepared = model.prepare(params, condition)
        if model.latent is not None:
            fields = model.draw(params, prepared, model.latent(key), key)
        elif model.mean is not None:
            fields = model.mean(params, prepared)
        else:
            raise ValueError("expected a model that draws samples or has a mean, got one without both")
        fields = fields.astype(sample.fields.dtype)
        return fields if model.finish is None else model.finish(fields, condition)

    jax.eval_shape(whole, jax.random.key(0))
