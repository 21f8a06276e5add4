"""The policy of VariBAD: actor and critic on the state and the belief about the task."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION, check_arguments, check_spaces, own_arguments
from sb3_trmrl.algorithms.transitions import TokenReader, check_keys, checked_starts
from sb3_trmrl.common.checks import check_bool, check_finite, check_keywords, short_repr
from sb3_trmrl.varibad.arguments import POLICY_CHECKS
from sb3_trmrl.varibad.networks import Encoder, Standardizer

#: Key of the belief in the observations that actor and critic read
BELIEF = "belief"
#: Number of steps in the statistics of the policy's inputs. Beliefs change with the encoder
_WINDOW = 1e5
#: Arguments that the encoder takes
_ENCODER_KWARGS = (
    "latent_dim",
    "gru_hidden_size",
    "action_embedding_dim",
    "state_embedding_dim",
    "reward_embedding_dim",
)


def token_reader(space: spaces.Space[Any]) -> TokenReader:
    """Return the reader of the tokens in these observations, which must not be stacked frames."""
    reader = TokenReader(space)
    assert isinstance(space, spaces.Dict)
    shape = space.spaces["prev_reward"].shape
    if shape != (1,):
        raise ValueError(f"`env` must have one prev_reward in each observation, got the shape {shape}: stack no frames")
    if BELIEF in space.spaces:
        raise ValueError(f"`env` must have no observation with the key {BELIEF!r}, which VariBAD adds")
    return reader


class StateAndBelief(BaseFeaturesExtractor):
    """
    The state and the belief side by side, both standardised with running statistics.

    :param observation_space: Space of the tokens
    :param latent_dim: Size of the latent
    :param standardize: Whether to standardise
    """

    def __init__(self, observation_space: spaces.Space[Any], latent_dim: int, standardize: bool) -> None:
        reader = token_reader(observation_space)
        super().__init__(observation_space, reader.state_dim + 2 * latent_dim)
        self.reader = reader
        self.standardizer: nn.Module = Standardizer(self.features_dim, _WINDOW) if standardize else nn.Identity()

    def inputs(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Return state and belief before standardisation, (B, F)."""
        return th.cat([self.reader.states(observations), observations[BELIEF]], dim=1)

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        features: th.Tensor = self.standardizer(self.inputs(observations))
        return features

    def update(self, observations: dict[str, th.Tensor]) -> None:
        """Include a batch of observations in the running statistics."""
        if isinstance(self.standardizer, Standardizer):
            self.standardizer.update(self.inputs(observations))


class VariBADPolicy(ActorCriticPolicy):
    """
    Actor-critic policy on the state and the belief about the task: mean and log-variance of the posterior that a
    recurrent encoder infers from the transitions since the trial began (Zintgraf et al., "VariBAD: A Very Good Method
    for Bayes-Adaptive Deep RL via Meta-Learning", 2020).

    Where SB3's policy takes observations, this one takes observations with the key ``"belief"``, which :meth:`predict`
    and the algorithm add. Without that key, the belief is the prior. The optimizer of the policy does not contain the
    encoder, which the algorithm trains as part of its variational autoencoder.

    :param observation_space: Observation space of an environment with ``PreviousTransitionObservation``
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: The specification of the policy and value networks, 2 x 128 each by default
    :param activation_fn: Activation function
    :param ortho_init: Whether to use or not orthogonal initialization
    :param use_sde: Whether to use State Dependent Exploration or not
    :param log_std_init: Initial value for the log standard deviation
    :param full_std: Whether to use (n_features x n_actions) parameters for the std instead of only (n_features,) when
        using gSDE
    :param use_expln: Use ``expln()`` function instead of ``exp()`` to ensure a positive standard deviation
    :param squash_output: Whether to squash the output using a tanh function, when using gSDE
    :param optimizer_class: The optimizer of actor and critic, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    :param latent_dim: Size of the task's latent
    :param gru_hidden_size: Size of the encoder's hidden state
    :param action_embedding_dim: Size of the encoder's embedding of the previous action
    :param state_embedding_dim: Size of the encoder's embedding of the state
    :param reward_embedding_dim: Size of the encoder's embedding of the previous reward
    :param standardize_inputs: Whether actor and critic read state and belief standardised with running statistics,
        over about the last 100,000 steps, which are updated after each update of the policy
    :raises TypeError: if an argument has the wrong type or ``observation_space`` is not a Dict
    :raises ValueError: if an argument is out of range, or a key of ``PreviousTransitionObservation`` is missing
    """

    features_extractor: StateAndBelief

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        latent_dim: int = 5,
        gru_hidden_size: int = 128,
        action_embedding_dim: int = 16,
        state_embedding_dim: int = 32,
        reward_embedding_dim: int = 16,
        standardize_inputs: bool = True,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, POLICY_CHECKS)
        check_spaces(observation_space, action_space)
        check_keywords("optimizer_kwargs", optimizer_kwargs, optimizer_class, ("params", "lr"))
        self.encoder_kwargs: dict[str, Any] = {name: arguments.pop(name) for name in _ENCODER_KWARGS}
        self.standardize_inputs = arguments.pop("standardize_inputs")
        arguments |= {
            "net_arch": dict(pi=[128, 128], vf=[128, 128]) if net_arch is None else net_arch,
            "features_extractor_class": StateAndBelief,
            "features_extractor_kwargs": dict(latent_dim=latent_dim, standardize=standardize_inputs),
        }
        super().__init__(**arguments)
        self.reader = self.features_extractor.reader
        # After SB3 has made the optimizer of all parameters, so that it does not contain the encoder's
        self.encoder = Encoder(
            self.reader.state_dim,
            self.reader.action_dim,
            latent_dim,
            gru_hidden_size,
            (action_embedding_dim, state_embedding_dim, reward_embedding_dim),
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for name in ("features_extractor_class", "features_extractor_kwargs", "normalize_images"):
            data.pop(name)
        return {**data, **self.encoder_kwargs, "standardize_inputs": self.standardize_inputs}

    # -- Belief ------------------------------------------------------------------------------------------------------

    @property
    def latent_dim(self) -> int:
        """Size of the task's latent"""
        return self.encoder.latent_dim

    def with_belief(self, obs: dict[str, th.Tensor], hidden: th.Tensor) -> dict[str, th.Tensor]:
        """
        :param obs: Observations, (B, ...) for each key
        :param hidden: Hidden states of the encoder after these observations, (B, H)
        :return: What actor and critic read: the observations with the key ``"belief"``, (B, 2 ``latent_dim``)
        """
        with th.no_grad():
            return {**obs, BELIEF: self.encoder.belief(hidden)}

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None) -> th.Tensor:
        """
        :param obs: Observations with the key ``"belief"``, or without it at the beginning of a trial
        :param features_extractor: The features extractor to use instead of the policy's
        :return: Input of actor and critic
        """
        assert isinstance(obs, dict)
        if BELIEF not in obs:
            obs = self.with_belief(obs, self.encoder.empty(len(obs["prev_done"])))
        features: th.Tensor = (features_extractor or self.features_extractor)(obs)
        return features

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """
        :param obs: Observations, see :meth:`extract_features`
        :return: the action distribution
        """
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(self.extract_features(obs)))

    def predict_values(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, see :meth:`extract_features`
        :return: the estimated values, (B, 1)
        """
        values: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(self.extract_features(obs)))
        return values

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        if not isinstance(observation, dict) or BELIEF not in observation:
            return super().obs_to_tensor(observation)
        if isinstance(observation[BELIEF], th.Tensor):  # from `predict`
            return observation, True
        own = {key: value for key, value in observation.items() if key != BELIEF}
        obs, vectorized = super().obs_to_tensor(own)
        belief = th.as_tensor(observation[BELIEF], device=self.device).reshape(-1, 2 * self.latent_dim)
        return {**obs, BELIEF: belief}, vectorized  # type: ignore[dict-item]

    # -- Acting ------------------------------------------------------------------------------------------------------

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray]]:
        """
        Get the policy action from an observation and the belief, which the transition in the observation updates.

        Use it as in RecurrentPPO: pass the returned state to the next call, with ``episode_start`` true where an
        episode (in meta-RL, a trial) begins.

        :param observation: the input observation, of one environment or of any number B of them
        :param state: The state returned by the last call: the encoder's hidden state, (B, ``gru_hidden_size``), in a
            tuple. None: trials begin in all environments
        :param episode_start: Mask of environments in which a trial begins, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions.
        :return: the model's action and the next state
        :raises ValueError: if ``state`` or ``episode_start`` belongs to another number of environments, or an
            observation is not finite or does not fit the observation space
        """
        if isinstance(observation, tuple):  # Gym's (obs, info): SB3 raises an explanatory error
            return super().predict(observation)
        check_bool("deterministic", deterministic)
        self.set_training_mode(False)
        assert isinstance(self.observation_space, spaces.Dict)
        check_keys(observation, self.observation_space)
        obs, vectorized = self.obs_to_tensor(observation)
        check_finite("observation", {key: value.cpu().numpy() for key, value in obs.items()}, MAX_OBSERVATION)
        n_envs = len(obs["prev_done"])
        hidden = self._check_state(state, n_envs)
        starts = np.ones(n_envs, dtype=bool) if state is None else checked_starts(episode_start, n_envs)
        with th.no_grad():
            starts_tensor = th.as_tensor(starts, dtype=th.bool, device=self.device)
            hidden = self.encoder.step(self.reader(obs), hidden, starts_tensor)
        actions, _ = super().predict(self.with_belief(obs, hidden), deterministic=deterministic)  # type: ignore[arg-type]
        return actions if vectorized else actions.squeeze(axis=0), (hidden.cpu().numpy(),)

    def _check_state(self, state: Any, n_envs: int) -> th.Tensor:
        empty = self.encoder.empty(n_envs)
        if state is None:
            return empty
        try:
            (hidden,) = state
            tensor = th.as_tensor(hidden, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"`state` must be a state from predict(), got {short_repr(state)}") from None
        if tensor.shape != empty.shape or tensor.dtype != empty.dtype:
            raise ValueError(
                f"`state` must have an array of {empty.dtype} of shape {tuple(empty.shape)} for {n_envs} "
                f"observation(s), got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return tensor
