"""The policy of MAML: a feed-forward actor without a critic."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    DiagGaussianDistribution,
    Distribution,
    kl_divergence,
    make_proba_distribution,
)
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from sb3_trmrl.algorithms.arguments import check_arguments
from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.maml_trpo.arguments import POLICY_CHECKS


class MAMLPolicy(BasePolicy):
    """
    Actor that reads the environment's own observation. It does not read the previous transition, because it adapts by
    gradient steps. There is no critic: the baseline is linear and is fitted to each task.

    :meth:`predict` of the policy acts with the initial parameters. That of :class:`~sb3_trmrl.MAMLTRPO` adapts.

    :param observation_space: Dict space of :class:`~sb3_trmrl.PreviousTransitionObservation`
    :param action_space: Action space
    :param net_arch: Sizes of the hidden layers; [64, 64] if None
    :param activation_fn: Activation function
    :param ortho_init: Whether to initialise the weights as SB3's PPO does
    :param log_std_init: Initial value of the logarithm of the standard deviation of Box actions
    :raises TypeError: if an argument has the wrong type, or the observations are not a Dict
    :raises ValueError: if an argument is out of range, or the observations lack the previous transition
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
    ) -> None:
        check_arguments(locals(), POLICY_CHECKS)
        super().__init__(observation_space, action_space)
        #: Splits observations
        self.reader = TokenReader(observation_space)
        assert isinstance(observation_space, spaces.Dict)
        if observation_space["prev_reward"].shape != (1,):
            raise ValueError(
                "`env` must have one prev_reward in its observation, got the shape "
                f"{observation_space['prev_reward'].shape}. MAMLTRPO cannot read stacked frames"
            )
        self.net_arch = [64, 64] if net_arch is None else list(net_arch)
        self.activation_fn, self.ortho_init, self.log_std_init = activation_fn, ortho_init, log_std_init
        self.hidden = nn.Sequential(*create_mlp(self.reader.state_dim, 0, self.net_arch, activation_fn))
        width = self.net_arch[-1] if self.net_arch else self.reader.state_dim
        distribution: Any = make_proba_distribution(action_space)
        self.is_gaussian = isinstance(distribution, DiagGaussianDistribution)
        if self.is_gaussian:
            self.action_net, self.log_std = distribution.proba_distribution_net(width, log_std_init=log_std_init)
        else:
            self.action_net = distribution.proba_distribution_net(width)
        if ortho_init:
            self.hidden.apply(lambda layer: self.init_weights(layer, gain=np.sqrt(2)))
            self.init_weights(self.action_net, gain=0.01)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("observation_space", "action_space", "net_arch", "activation_fn", "ortho_init", "log_std_init")
        return {name: getattr(self, name) for name in names}

    def forward(self, states: th.Tensor) -> th.Tensor:
        """
        :param states: Flat states, (N, S)
        :return: The numbers that determine the distributions, (N, K): mean and logarithm of the standard deviation of
            Box actions, logits of others
        """
        output: th.Tensor = self.action_net(self.hidden(states))
        return th.cat((output, self.log_std.expand_as(output)), dim=-1) if self.is_gaussian else output

    def distribution(self, numbers: th.Tensor) -> Distribution:
        """
        :param numbers: Output of :meth:`forward`, (N, K)
        :return: Distribution of N actions
        """
        parts = numbers.chunk(2, dim=-1) if self.is_gaussian else (numbers,)
        distribution: Distribution = make_proba_distribution(self.action_space).proba_distribution(*parts)
        return distribution

    def log_prob(self, numbers: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param numbers: Output of :meth:`forward`, (N, K)
        :param actions: Actions, (N, A)
        :return: Their logarithmic probabilities, summed over the A components, (N,)
        """
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        return self.distribution(numbers).log_prob(actions)

    def kl_divergence(self, numbers: th.Tensor, others: th.Tensor) -> th.Tensor:
        """
        :param numbers: Output of :meth:`forward`, (N, K)
        :param others: The same of other distributions
        :return: Divergence of the others from these distributions, KL(numbers || others), (N,)
        """
        divergence = kl_divergence(self.distribution(numbers), self.distribution(others))
        return divergence if divergence.ndim == 1 else divergence.sum(dim=1)

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        numbers = self(self.reader(observation).state)
        return self.distribution(numbers).get_actions(deterministic)

    def env_actions(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: Actions of the distributions, (B, A)
        :return: Actions of the environment, (B, \\*action)
        """
        actions = actions.reshape(-1, *(self.action_space.shape or ()))
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions
