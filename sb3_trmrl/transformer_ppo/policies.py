"""The TrMRL policy: heads over the episodic memory."""

import pickle
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_trmrl.algorithms.arguments import check_arguments, check_spaces, own_arguments
from sb3_trmrl.common.checks import check_option
from sb3_trmrl.memory.buffers import MaskedBatch
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.interface import Batch, Memory
from sb3_trmrl.memory.kinds import memory_name
from sb3_trmrl.memory.policy import MemoryPolicy, PolicyInput, as_batch
from sb3_trmrl.transformer_ppo.action_masks import check_action_masks, mask_distribution
from sb3_trmrl.transformer_ppo.arguments import POLICY_CHECKS


class TrMRLPolicy(MemoryPolicy, ActorCriticPolicy):
    """
    Actor-critic policy with a causal transformer over working memories (Melo, "Transformers are Meta-Reinforcement
    Learners", 2022, figure 1 and Algorithm 1).

    SB3's features extractor computes the features of each token. The transformer follows it, as the LSTM does in
    RecurrentPPO. Where SB3's policy takes observations, this one takes memories, as declared in
    :mod:`sb3_trmrl.memory.interface`. Plain observations are read as the first of an episode.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: The specification of the policy and value networks.
    :param activation_fn: Activation function of the heads
    :param ortho_init: Whether to use orthogonal initialization for heads and token features.
        The embedding and the encoder always follow ``initialization``.
    :param use_sde: Whether to use State Dependent Exploration or not
    :param log_std_init: Initial value for the log standard deviation
    :param full_std: Whether to use (n_features x n_actions) parameters
        for the std instead of only (n_features,) when using gSDE
    :param use_expln: Use ``expln()`` function instead of ``exp()`` to ensure a positive standard deviation
    :param squash_output: Whether to squash the output using a tanh function, when using gSDE
    :param features_extractor_class: Features extractor of one token. By default ``CombinedExtractor`` for Dict
        observations, ``NatureCNN`` for images of 36 x 36 pixels or more, otherwise ``FlattenExtractor``. Smaller images
        in Dict observations are flattened.
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor.
    :param share_features_extractor: If True, actor and critic share the transformer (with ``critic_input="memory"``)
        or the token features (with ``"token"``). By default each has its own, as in RecurrentPPO, because the critic's
        gradient would dominate the actor's where returns are large.
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param optimizer_class: The optimizer to use, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer. Adam's
        epsilon is PyTorch's 1e-8 by default instead of SB3's 1e-5, and ``fused`` is on.
    :param context_length: Number of working memories N in the window, 16 by default with ``memory="window"``. With
        ``memory="full"``, the number of tokens that a token attends to in each layer, 1,024 by default
    :param d_model: Width of the working memories
    :param n_layers: Number of transformer layers
    :param n_heads: Number of attention heads, divides ``d_model``
    :param dim_feedforward: Hidden units of the position-wise networks
    :param initialization: ``"tfixup"`` (the paper, section 3.3), ``"xavier"`` or ``"default"`` (PyTorch's)
    :param layer_norm: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    :param positional_encoding: ``"sinusoidal"`` (the paper) or ``"learned"``, of the slot index; ``"relative"``: a
        learned bias of attention by distance, the default of ``memory="full"``; or ``"none"``
    :param embedding_arch: Hidden ReLU layers of the embedding phi before its linear layer
    :param reset_memory_on: An episode of SB3 is a trial of the paper. ``"trial"``: the memory is emptied only at the
        start of SB3's episodes. ``"episode"``: also where ``prev_done`` of a Dict observation is positive. Without that
        key the two are the same.
    :param critic_input: ``"memory"``: the critic reads the episodic memory. ``"token"``: the critic is an MLP on the
        features of the current token, as in the released HalfCheetahVel and MetaWorld settings.
    :param action_head_gain: Gain of the action head's orthogonal initialization (with ``ortho_init``)
    :param memory: ``"window"`` (the paper): the newest tokens, recomputed at each step. ``"full"``: all tokens
        since the memory was emptied, each computed once. Positions are counted from there. None: a window if
        ``context_length`` is given, and otherwise the full memory.
    :raises TypeError: if an argument has the wrong type, or keyword arguments have a name that their class does not
        take
    :raises ValueError: if a size is below 1, an option is unknown, ``n_heads`` does not divide ``d_model``, or
        ``d_model`` is odd with sinusoidal positions
    """

    pi_features_extractor: TransformerExtractor
    vf_features_extractor: BaseFeaturesExtractor

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
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = False,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        context_length: int | None = None,
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        dim_feedforward: int = 256,
        initialization: str = "tfixup",
        layer_norm: str = "none",
        positional_encoding: str | None = None,
        embedding_arch: list[int] | None = None,
        reset_memory_on: str = "episode",
        critic_input: str = "memory",
        action_head_gain: float = 0.01,
        memory: str | None = None,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, POLICY_CHECKS)
        check_spaces(observation_space, action_space)
        arguments["memory"] = memory_name(memory, context_length)
        self._set_memory(arguments)
        self.critic_input = check_option("critic_input", arguments.pop("critic_input"), ("memory", "token"))
        self.critic_shares_features = share_features_extractor
        self.action_head_gain = arguments.pop("action_head_gain")
        self._unclaimed_state: Memory | None = None  # see `predict`
        # A critic on the token needs no transformer of its own
        arguments["share_features_extractor"] = share_features_extractor or critic_input == "token"
        super().__init__(**arguments)

    # -- Building ----------------------------------------------------------------------------------------------------

    def _build(self, lr_schedule: Schedule) -> None:
        if self.critic_input == "token":
            self.share_features_extractor = False  # the heads read different features
            own = not self.critic_shares_features
            self.vf_features_extractor = (
                self._make_token_extractor() if own else self.pi_features_extractor.token_extractor
            )
        super()._build(lr_schedule)
        if self.ortho_init:
            self.action_net.apply(partial(self.init_weights, gain=self.action_head_gain))
        for number, transformer in enumerate(self.transformers):
            transformer.number = number
            transformer.reset_parameters()  # SB3 has initialized all of its layers orthogonally
        # Always two groups, so that a zip loads whether or not the critic has a learning rate of its own
        critic = self._critic_parameters()
        others = [parameter for parameter in self.parameters() if all(parameter is not own for own in critic)]
        self.optimizer = self._make_optimizer([{"params": others}, {"params": critic}], lr_schedule)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        if self.critic_input == "token":  # of another width than the memory
            features_dim = self.vf_features_extractor.features_dim
            critic = MlpExtractor(features_dim, self.net_arch, self.activation_fn, self.device)
            self.mlp_extractor.value_net = critic.value_net
            self.mlp_extractor.latent_dim_vf = critic.latent_dim_vf

    def _critic_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only the critic uses, without those of a shared extractor."""
        shared = set(self.pi_features_extractor.parameters())
        modules = (self.vf_features_extractor, self.mlp_extractor.value_net, self.value_net)
        return [parameter for module in modules for parameter in module.parameters() if parameter not in shared]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.critic_shares_features,
            "critic_input": self.critic_input,
            "action_head_gain": self.action_head_gain,
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrMRLPolicy":
        # The last distribution refers to the graph of the last update, which only pickle drops
        memo[id(self.action_dist)] = pickle.loads(pickle.dumps(self.action_dist))
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    # -- Memory ------------------------------------------------------------------------------------------------------

    @property
    def transformers(self) -> list[TransformerExtractor]:
        """The actor's transformer, and the critic's if it has one of its own"""
        # A dictionary keeps the order, which a set does not: the same seed must draw the same weights
        extractors = dict.fromkeys((self.pi_features_extractor, self.vf_features_extractor))
        return [extractor for extractor in extractors if isinstance(extractor, TransformerExtractor)]

    def extract_features(  # type: ignore[override]
        self, obs: PolicyInput, features_extractor: BaseFeaturesExtractor | None = None
    ) -> th.Tensor | tuple[th.Tensor, th.Tensor]:
        """
        :param obs: Memories, or observations that are read as the first of an episode
        :param features_extractor: The features extractor to use instead of the policy's
        :return: Input of the heads: episodic memories, (B, ``d_model``). A tuple for actor and critic if they differ
        """
        batch = as_batch(self._kind, obs)
        features = self._features(batch, features_extractor or self.pi_features_extractor)
        if self.share_features_extractor or features_extractor is not None:
            return features
        return features, self._features(batch, self.vf_features_extractor)

    def _features(self, batch: Batch, extractor: BaseFeaturesExtractor) -> th.Tensor:
        """Return what the heads read, given the features extractor of the actor or of the critic."""
        if isinstance(extractor, TransformerExtractor):
            features: th.Tensor = extractor(batch)
            return features
        return BasePolicy.extract_features(self, batch.newest(), extractor)  # a critic on the current token

    def get_distribution(self, obs: PolicyInput) -> Distribution:
        """
        :param obs: Memories, or observations that are read as the first of an episode
        :return: the action distribution.
        """
        features = self._features(as_batch(self._kind, obs), self.pi_features_extractor)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(features))
        return mask_distribution(distribution, obs.action_masks) if isinstance(obs, MaskedBatch) else distribution

    def predict_values(self, obs: PolicyInput) -> th.Tensor:
        """
        :param obs: Memories, or observations that are read as the first of an episode
        :return: the estimated values, (B, 1)
        """
        features = self._features(as_batch(self._kind, obs), self.vf_features_extractor)
        values: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(features))
        return values

    def forward(self, obs: PolicyInput, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param obs: Memories
        :param deterministic: Whether to use deterministic actions instead of stochastic ones
        :return: Actions, values and log probabilities of the actions
        :raises TypeError: if ``obs`` are plain observations: an algorithm other than TransformerPPO collects with them
        """
        if isinstance(obs, (th.Tensor, dict)):
            raise TypeError(
                "TrMRLPolicy got observations without a memory. Train it with sb3_trmrl.TransformerPPO: other "
                "algorithms do not carry the memory from one step to the next"
            )
        if isinstance(obs, MaskedBatch):
            distribution, values = self._masked_heads(obs)
            actions = distribution.get_actions(deterministic=deterministic)
            log_prob = distribution.log_prob(actions)
            return actions.reshape(len(actions), *(self.action_space.shape or ())), values, log_prob
        return super().forward(obs, deterministic)  # type: ignore[arg-type]

    def evaluate_actions(self, obs: PolicyInput, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """
        :param obs: Memories, or observations that are read as the first of an episode
        :param actions: Actions
        :return: Values, log probabilities of the actions, and entropies of the distributions
        """
        if isinstance(obs, MaskedBatch):
            distribution, values = self._masked_heads(obs)
            return values, distribution.log_prob(actions), distribution.entropy()
        return super().evaluate_actions(obs, actions)  # type: ignore[arg-type]

    def _masked_heads(self, batch: MaskedBatch) -> tuple[Distribution, th.Tensor]:
        """Return distributions of valid actions, and values."""
        features = self.extract_features(batch)
        actor, critic = features if isinstance(features, tuple) else (features, features)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(actor))
        values: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(critic))
        return mask_distribution(distribution, batch.action_masks), values

    # -- Acting ------------------------------------------------------------------------------------------------------

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        if isinstance(observation, MaskedBatch):  # from `predict`
            return observation, True
        return super().obs_to_tensor(observation)

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Memory]:
        """
        Get the policy action from an observation and the memory of those before it.

        Use it as in RecurrentPPO: pass the returned state to the next call, with ``episode_start`` true where an
        episode (in meta-RL, a trial) begins. If both are None, the action depends on this observation only.

        :param observation: the input observation, of one environment or of any number of them
        :param state: The memory returned by the last call, None for an empty one
        :param episode_start: Mask of environments whose memory is emptied first, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions.
        :param action_masks: Masks of valid actions, booleans, (B, M), or (M,) for one environment. M is the number of
            choices: ``n`` for Discrete, ``sum(nvec)`` for MultiDiscrete, and 2 n for MultiBinary, (0 is valid, 1 is
            valid) for each bit. None if all actions are valid. sb3-contrib's maskable ``evaluate_policy`` never passes
            a state: calls with masks and ``episode_start`` but without a state continue the memory of the call before
        :return: the model's action and the memory that ends with this observation
        :raises ValueError: if ``state`` belongs to another number of environments, an observation is not finite, or
            the masks do not fit the action space or allow no action
        """
        has_dropped_state = state is None and episode_start is not None and action_masks is not None
        unclaimed = self._unclaimed_state if has_dropped_state else None
        memory, vectorized = self._remember_next(observation, state, episode_start, deterministic, unclaimed)
        masked: Any = self.masked(memory, action_masks)
        actions, _ = BasePolicy.predict(self, masked, deterministic=deterministic)
        kept = memory.numpy()
        self._unclaimed_state = kept if has_dropped_state else None
        return actions if vectorized else actions.squeeze(axis=0), kept

    def masked(self, memory: Memory, action_masks: Any) -> Memory | MaskedBatch:
        """
        :param memory: Memory that ends with the newest observations
        :param action_masks: Masks of valid actions as in :meth:`predict`, or None
        :return: What :meth:`forward` and :meth:`get_distribution` read: the memory, or the memory with the masks
        :raises ValueError: if the masks do not fit the action space or allow no action
        """
        if action_masks is None:
            return memory
        masks = check_action_masks(action_masks, self.action_space, len(memory.lengths))
        return MaskedBatch(as_batch(self._kind, memory), th.as_tensor(masks, device=self.device))


#: SB3's names. The policy finds the token extractor from the observation space, so they are all the same.
MlpTransformerPolicy = TrMRLPolicy
CnnTransformerPolicy = TrMRLPolicy
MultiInputTransformerPolicy = TrMRLPolicy
