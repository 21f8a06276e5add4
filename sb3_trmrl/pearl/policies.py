"""The policy of PEARL: SB3's SAC, whose actor and critics read the state and a latent sample, and the encoder."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_trmrl.algorithms.arguments import check_arguments
from sb3_trmrl.algorithms.transitions import Token, TokenReader, check_observation, checked_starts
from sb3_trmrl.common.checks import check_bool
from sb3_trmrl.pearl.arguments import POLICY_CHECKS, check_action_space
from sb3_trmrl.pearl.encoder import ContextEncoder, Posterior, prior


class Adaptation(NamedTuple):
    """
    What the agent has inferred in B trials, as float32 arrays: the state of :meth:`PEARLPolicy.predict`.

    :param precision: Of the posterior, (B, L)
    :param weighted_mean: Means of the posterior times precisions, (B, L)
    :param latent: Latents of the current episodes, (B, L)
    :param last_state: States to which the agent reacted last, (B, S)
    """

    precision: np.ndarray
    weighted_mean: np.ndarray
    latent: np.ndarray
    last_state: np.ndarray


class PEARLPolicy(SACPolicy):
    """
    Actor and critics of SAC that read the state and a latent sample, and the encoder that infers the latent.

    :param observation_space: Dict space of :class:`~sb3_trmrl.PreviousTransitionObservation`
    :param action_space: Box with finite bounds
    :param lr_schedule: Learning rate of actor, critics and encoder
    :param net_arch: Sizes of the hidden layers of actor and critics, or a dictionary with the keys ``"pi"`` and
        ``"qf"``; [300, 300, 300] if None
    :param activation_fn: Activation function of all networks
    :param latent_dim: Components of the latent variable
    :param encoder_net_arch: Sizes of the hidden layers of the encoder; [200, 200, 200] if None
    :param n_critics: Number of critics
    :param optimizer_class: Optimizer of actor, critics and encoder
    :param optimizer_kwargs: Its arguments, except for the learning rate
    :raises TypeError: if an argument has the wrong type, or a space is not a Dict or a Box
    :raises ValueError: if an argument is out of range, or the observations lack the previous transition
    """

    encoder: ContextEncoder

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        latent_dim: int = 5,
        encoder_net_arch: list[int] | None = None,
        n_critics: int = 2,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        check_arguments(locals(), POLICY_CHECKS)
        #: Splits observations
        self.reader = TokenReader(observation_space)
        box = check_action_space(action_space, self.reader)
        self.latent_dim = latent_dim
        self.encoder_net_arch = [200, 200, 200] if encoder_net_arch is None else list(encoder_net_arch)
        super().__init__(
            observation_space,
            box,
            lr_schedule,
            [300, 300, 300] if net_arch is None else net_arch,
            activation_fn,
            n_critics=n_critics,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        # Actor and critics read one vector
        self.input_space = spaces.Box(-np.inf, np.inf, shape=(self.reader.state_dim + self.latent_dim,))
        self.actor_kwargs["observation_space"] = self.critic_kwargs["observation_space"] = self.input_space
        super()._build(lr_schedule)
        transition_dim = self.reader.state_dim + self.reader.action_dim + 1
        self.encoder = ContextEncoder(transition_dim, self.latent_dim, self.encoder_net_arch, self.activation_fn)
        self.encoder.optimizer = self.optimizer_class(
            self.encoder.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        return FlattenExtractor(self.input_space)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "latent_dim": self.latent_dim,
            "encoder_net_arch": self.encoder_net_arch,
            "n_critics": self.critic_kwargs["n_critics"],
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        """Return scaled actions at the beginning of a trial, with latents from the prior."""
        token = self.reader(observation)
        latent = prior(len(token.state), self.latent_dim, device=self.device).sample()
        return self.act(token.state, latent, deterministic)

    def act(self, states: th.Tensor, latents: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        :param states: (B, S)
        :param latents: (B, L)
        :param deterministic: Whether to return the mode of the distribution
        :return: Actions scaled to [-1, 1], (B, A)
        """
        actions: th.Tensor = self.actor(th.cat((states, latents), dim=1), deterministic)
        return actions

    def env_actions(self, scaled: np.ndarray) -> np.ndarray:
        """
        :param scaled: Actions scaled to [-1, 1], (B, A)
        :return: Actions of the environment, (B, \\*action)
        """
        assert isinstance(self.action_space, spaces.Box)
        return self.unscale_action(scaled.reshape(-1, *self.action_space.shape))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get the policy action from an observation and what has been inferred from the trial so far. The latent of a
        trial's first episode is drawn from the prior, that of each later one from the posterior of all transitions
        before it. Latents are drawn from PyTorch's generator also if ``deterministic``: without different latents, the
        agent would not explore.

        :param observation: the input observation, of one environment or of any number B of them
        :param state: What the last call returned, None at the beginning of all trials
        :param episode_start: Mask of environments in which a trial begins, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions for the latent
        :return: the model's action and the :class:`Adaptation` to pass to the next call
        :raises TypeError: if the observation is not a dictionary
        :raises ValueError: if an argument does not fit the policy or the number of observations, or is not finite
        """
        check_bool("deterministic", deterministic)
        self.set_training_mode(False)
        check_observation(observation, self.observation_space)
        tensors, is_vectorized = self.obs_to_tensor(observation)
        with th.no_grad():
            token = self.reader(tensors)  # type: ignore[arg-type]
            adaptation = self._adapt(token, state, episode_start)
            latents = th.as_tensor(adaptation.latent, device=self.device)
            scaled = self.act(token.state, latents, deterministic).cpu().numpy()
        actions = self.env_actions(scaled)
        return actions if is_vectorized else actions[0], adaptation

    def _adapt(self, token: Token, state: tuple[np.ndarray, ...] | None, starts: Any) -> Adaptation:
        """Add the transitions that led to a token to the posteriors, and draw latents where an episode begins."""
        n_envs = len(token.state)
        begins = np.ones(n_envs, dtype=bool)
        if state is None:
            posterior = prior(n_envs, self.latent_dim, device=self.device)
            latents = posterior.mean
        else:
            begins = checked_starts(starts, n_envs)
            precision, weighted_mean, latents, last_state = self._read(state, n_envs)
            factor = self.encoder.factors(th.cat((last_state, *self._previous(token)), dim=1))
            is_known = ~th.as_tensor(begins, device=self.device)[:, None] & ~_is_zeroed(token)
            begin = th.as_tensor(begins, device=self.device)[:, None]
            posterior = Posterior(
                th.where(begin, 1.0, precision + is_known * factor.precision),
                th.where(begin, 0.0, weighted_mean + is_known * factor.weighted_mean),
            )
        new_episode = th.as_tensor(begins, device=self.device)[:, None] | (token.prev_done > 0)
        if new_episode.any():
            latents = th.where(new_episode, posterior.sample(), latents)
        arrays = [each.cpu().numpy() for each in (*posterior, latents, token.state)]
        return Adaptation(*arrays)

    def _previous(self, token: Token) -> tuple[th.Tensor, th.Tensor]:
        """Return the previous actions, scaled to [-1, 1], and the previous rewards."""
        assert isinstance(self.action_space, spaces.Box)
        low = th.as_tensor(self.action_space.low, device=self.device).flatten()
        high = th.as_tensor(self.action_space.high, device=self.device).flatten()
        return 2 * (token.prev_action - low) / (high - low) - 1, token.prev_reward

    def _read(self, state: tuple[np.ndarray, ...], n_envs: int) -> list[th.Tensor]:
        """Return the arrays of an :class:`Adaptation` of B trials as tensors."""
        sizes = (self.latent_dim, self.latent_dim, self.latent_dim, self.reader.state_dim)
        shapes = [(n_envs, size) for size in sizes]
        if not isinstance(state, tuple) or [np.shape(each) for each in state] != shapes:
            got = [np.shape(each) for each in state] if isinstance(state, tuple) else repr(state)
            raise ValueError(f"`state` must be what the last call of predict returned, arrays {shapes}, got {got}")
        return [th.as_tensor(each, device=self.device) for each in state]


def _is_zeroed(token: Token) -> th.Tensor:
    """Return where an inner reset has zeroed the previous transition (``across_episodes="zero"``), (B, 1)."""
    is_zero = (token.prev_action == 0).all(dim=1, keepdim=True) & (token.prev_reward == 0)
    return is_zero & (token.prev_done > 0)
