"""The outer loop: a step of TRPO on the initial parameters, through the inner loop of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch as th

from sb3_trmrl.maml_trpo.inner import Samples, adapt, flat_parameters, log_probs, outputs, set_flat_parameters
from sb3_trmrl.maml_trpo.policies import MAMLPolicy

if TYPE_CHECKING:
    from sb3_trmrl.maml_trpo.maml_trpo import MAMLTRPO


class TaskSamples(NamedTuple):
    """
    Data of E tasks.

    :param inner: Data of each inner step
    :param outer: Data of the adapted policies
    """

    inner: tuple[Samples, ...]
    outer: Samples


class Objective:
    """
    Surrogate objective and KL divergence of the adapted policies, averaged over tasks, as functions of the initial
    parameters.

    :param policy: Policy
    :param batches: Data of batches of tasks, which are differentiated one after the other, so that only one graph is in
        memory. All have the same number of tasks
    :param learning_rate: Of the inner steps
    """

    def __init__(self, policy: MAMLPolicy, batches: Sequence[TaskSamples], learning_rate: float) -> None:
        self.policy, self.batches, self.learning_rate = policy, batches, learning_rate

    def _of_batch(self, flat: th.Tensor, batch: TaskSamples) -> tuple[th.Tensor, th.Tensor]:
        samples = batch.outer
        adapted = adapt(self.policy, flat.expand(len(samples.states), -1), batch.inner, self.learning_rate)
        numbers = outputs(self.policy, adapted, samples.states)
        new, old = (log_probs(self.policy, each, samples.actions) for each in (numbers, samples.numbers))
        divergences = self.policy.kl_divergence(samples.numbers.flatten(end_dim=1), numbers.flatten(end_dim=1))
        weights = samples.weights / len(samples.weights)
        return (weights * th.exp(new - old) * samples.advantages).sum(), (weights * divergences.view_as(weights)).sum()

    def values(self, flat: th.Tensor) -> tuple[float, float]:
        """
        :param flat: Initial parameters, (P,)
        :return: Surrogate objective and KL divergence
        """
        with th.no_grad():
            values = th.stack([th.stack(self._of_batch(flat, batch)) for batch in self.batches]).mean(dim=0)
        return float(values[0]), float(values[1])

    def gradient(self, flat: th.Tensor) -> th.Tensor:
        """
        :param flat: Initial parameters, (P,)
        :return: Gradient of the surrogate objective, (P,)
        """
        flat = flat.detach().requires_grad_()
        total = th.zeros_like(flat)
        for batch in self.batches:
            total += th.autograd.grad(self._of_batch(flat, batch)[0], flat)[0]
        return total / len(self.batches)

    def kl_hessian_vector_product(self, flat: th.Tensor, vector: th.Tensor) -> th.Tensor:
        """
        :param flat: Initial parameters, (P,)
        :param vector: (P,)
        :return: Product of the Hessian of the KL divergence and the vector, (P,)
        """
        flat = flat.detach().requires_grad_()
        total = th.zeros_like(flat)
        for batch in self.batches:
            (gradient,) = th.autograd.grad(self._of_batch(flat, batch)[1], flat, create_graph=True)
            total += th.autograd.grad(gradient @ vector, flat)[0]
        return total / len(self.batches)


def trpo_step(model: MAMLTRPO, batches: Sequence[TaskSamples]) -> dict[str, float]:
    """
    Change the initial parameters.

    :param model: Algorithm
    :param batches: Data of batches of tasks
    :return: Values for the logger
    :raises FloatingPointError: if a gradient is not finite; then the parameters are unchanged
    """
    from sb3_contrib.common.utils import conjugate_gradient_solver  # of an extra

    objective = Objective(model.policy, batches, model.inner_learning_rate)
    start = flat_parameters(model.policy)

    def damped(vector: th.Tensor) -> th.Tensor:
        return objective.kl_hessian_vector_product(start, vector) + model.cg_damping * vector

    surrogate, _ = objective.values(start)
    gradient = objective.gradient(start)
    # Only the direction matters, and the solver takes residuals below an absolute limit for zero
    direction, norm = gradient, gradient.norm()
    if norm > 0:
        direction = conjugate_gradient_solver(damped, gradient / norm, max_iter=model.cg_max_steps)
    curvature = float(direction @ damped(direction))
    if not (th.isfinite(gradient).all() and th.isfinite(direction).all()):
        raise FloatingPointError(f"the gradient of the policy objective is not finite: {gradient}")
    result = {"policy_objective": surrogate, "kl_divergence_loss": 0.0, "is_line_search_success": 0.0}
    result["gradient_norm"] = float(norm)
    step = (2 * model.target_kl / curvature) ** 0.5 * direction if curvature > 0 else th.zeros_like(direction)
    for _ in range(model.line_search_max_iter if curvature > 0 else 0):
        new_surrogate, divergence = objective.values(start + step)
        if divergence <= model.target_kl and new_surrogate > surrogate:
            set_flat_parameters(model.policy, start + step)
            found = {"policy_objective": new_surrogate, "kl_divergence_loss": divergence}
            return {**result, **found, "is_line_search_success": 1.0}
        step = model.line_search_shrinking_factor * step
    return result
