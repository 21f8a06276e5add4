"""The inner loop: policy-gradient steps on the data of each task, as a differentiable function of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pad_sequence

from sb3_trmrl.maml_trpo.policies import MAMLPolicy


class Samples(NamedTuple):
    """
    Steps of E tasks, padded to the largest number of steps N.

    :param states: Flat states, (E, N, S)
    :param actions: Actions before clipping, (E, N, A)
    :param advantages: Of these actions, (E, N)
    :param numbers: What determines the distributions that the actions were drawn from, (E, N, K)
    :param weights: Of the steps in means over a task, (E, N): 1 / (steps of the task), and 0 for padding
    """

    states: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor
    numbers: th.Tensor
    weights: th.Tensor


def padded(tasks: Sequence[Sequence[th.Tensor]]) -> Samples:
    """
    :param tasks: States, actions, advantages and numbers of each of E tasks, (N_e, ...)
    :return: The same, padded
    """
    with_weights = [(*task, th.full_like(task[2], 1 / len(task[2]))) for task in tasks]
    return Samples(*(pad_sequence(list(part), batch_first=True) for part in zip(*with_weights, strict=True)))


def flat_parameters(policy: MAMLPolicy) -> th.Tensor:
    """Return a copy of all parameters, (P,)."""
    return th.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def set_flat_parameters(policy: MAMLPolicy, flat: th.Tensor) -> None:
    """Write all parameters, (P,)."""
    with th.no_grad():
        for name, values in _by_name(policy, flat).items():
            policy.get_parameter(name).copy_(values)


def _by_name(policy: MAMLPolicy, flat: th.Tensor) -> dict[str, th.Tensor]:
    named = dict(policy.named_parameters())
    parts = flat.split([parameter.numel() for parameter in named.values()])
    return {name: part.view(named[name].shape) for name, part in zip(named, parts, strict=True)}


def outputs(policy: MAMLPolicy, flat: th.Tensor, states: th.Tensor) -> th.Tensor:
    """
    :param policy: Policy
    :param flat: Parameters for each of E tasks, (E, P)
    :param states: (E, ..., S)
    :return: Output of the policy, (E, ..., K)
    """

    def of_one(own: th.Tensor, own_states: th.Tensor) -> th.Tensor:
        numbers: th.Tensor = functional_call(policy, _by_name(policy, own), (own_states,))
        return numbers

    numbers: th.Tensor = vmap(of_one)(flat, states)
    return numbers


def finite_outputs(policy: MAMLPolicy, flat: th.Tensor, states: th.Tensor) -> th.Tensor:
    """
    Return :func:`outputs` to act with.

    :raises FloatingPointError: if an inner step has led to parameters without a distribution of actions
    """
    found = outputs(policy, flat, states)
    deviations = th.exp(found.chunk(2, dim=-1)[1]) if policy.is_gaussian else th.ones(1)
    if not (th.isfinite(found).all() and th.isfinite(deviations).all() and (deviations > 0).all()):
        raise FloatingPointError(
            "the adapted policy has actions that are not finite: lower `inner_learning_rate`, or use "
            "`normalize_advantage`"
        )
    return found


def log_probs(policy: MAMLPolicy, numbers: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """Return the logarithms of the probabilities of actions, (E, N, A), given numbers, (E, N, K), as (E, N)."""
    return policy.log_prob(numbers.flatten(end_dim=1), actions.flatten(end_dim=1)).view(numbers.shape[:2])


def inner_losses(policy: MAMLPolicy, flat: th.Tensor, samples: Samples) -> th.Tensor:
    """
    Return the losses whose gradients are those of the policy: minus the mean of log-probability times advantage.

    :param policy: Policy
    :param flat: Parameters for each of E tasks, (E, P)
    :param samples: Their data
    :return: (E,)
    """
    found = log_probs(policy, outputs(policy, flat, samples.states), samples.actions)
    return -(samples.weights * samples.advantages * found).sum(dim=1)


def adapt(policy: MAMLPolicy, flat: th.Tensor, steps: Sequence[Samples], learning_rate: float) -> th.Tensor:
    """
    Take gradient steps. Outside ``torch.no_grad``, the result can be differentiated with respect to the parameters.

    :param policy: Policy
    :param flat: Parameters for each of E tasks, (E, P)
    :param steps: Data of each step
    :param learning_rate: Factor of the gradients
    :return: Adapted parameters, (E, P)
    """
    for samples in steps:
        # The loss of a task depends on its own parameters only
        gradients = grad(lambda each, samples=samples: inner_losses(policy, each, samples).sum())(flat)
        flat = flat - learning_rate * gradients
    return flat
