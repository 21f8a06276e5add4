"""The inner loop: policy-gradient steps on the data of one task, as a differentiable function of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch.func import functional_call, grad, vmap

from sb3_trmrl.maml_trpo.policies import MAMLPolicy


class Samples(NamedTuple):
    """
    Steps of one task.

    :param states: Flat states, (N, S)
    :param actions: Actions before clipping, (N, A)
    :param advantages: Of these actions, (N,)
    :param numbers: What determines the distributions that the actions were drawn from, (N, K)
    """

    states: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor
    numbers: th.Tensor


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
    :param flat: Its parameters, (P,)
    :param states: (N, S)
    :return: Output of the policy with these parameters, (N, K)
    """
    numbers: th.Tensor = functional_call(policy, _by_name(policy, flat), (states,))
    return numbers


def outputs_of_each(policy: MAMLPolicy, flat: th.Tensor, states: th.Tensor) -> th.Tensor:
    """
    :param policy: Policy
    :param flat: Parameters for each of B states, (B, P)
    :param states: (B, S)
    :return: Output of the policy, (B, K)
    """
    numbers: th.Tensor = vmap(lambda own, state: outputs(policy, own, state))(flat, states)
    return numbers


def inner_loss(policy: MAMLPolicy, flat: th.Tensor, samples: Samples) -> th.Tensor:
    """Return the loss whose gradient is that of the policy: minus the mean of log-probability times advantage."""
    numbers = outputs(policy, flat, samples.states)
    return -(samples.advantages * policy.log_prob(numbers, samples.actions)).mean()


def adapt(policy: MAMLPolicy, flat: th.Tensor, steps: Sequence[Samples], learning_rate: float) -> th.Tensor:
    """
    Take gradient steps. Outside ``torch.no_grad``, the result can be differentiated with respect to the parameters.

    :param policy: Policy
    :param flat: Parameters, (P,)
    :param steps: Data of each step
    :param learning_rate: Factor of the gradients
    :return: Adapted parameters, (P,)
    """
    for samples in steps:
        gradient = grad(lambda own, samples=samples: inner_loss(policy, own, samples))(flat)
        flat = flat - learning_rate * gradient
    return flat
