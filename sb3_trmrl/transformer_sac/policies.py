"""The policy of TransformerSAC: SB3's actor and critics over the episodic memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn

from sb3_trmrl.algorithms.arguments import check_arguments, check_spaces, own_arguments
from sb3_trmrl.algorithms.sac_arguments import check_bounded_box
from sb3_trmrl.common.checks import check_option
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.interface import MemoryKind
from sb3_trmrl.memory.policy import MemoryPolicy, PolicyInput, as_batch
from sb3_trmrl.transformer_sac.arguments import POLICY_CHECKS, kind_of_memory


class Encoded(NamedTuple):
    """A batch of memories that a transformer has encoded already, as actor and critic read it."""

    features: th.Tensor

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        return self.features


class _Reader(BaseModel):
    """An actor or critic that reads memories."""

    kind: MemoryKind
    #: Whether its loss trains its transformer
    trains_memory: bool = True

    def extract_features(self, obs: PolicyInput, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """
        :param obs: Memories, or observations that are read as the first of an episode
        :param features_extractor: The transformer
        :return: Episodic memories, (B, ``d_model``)
        """
        with th.set_grad_enabled(th.is_grad_enabled() and self.trains_memory):
            features: th.Tensor = features_extractor(as_batch(self.kind, obs))
        return features if self.trains_memory else features.detach()

    def trained_parameters(self) -> list[nn.Parameter]:
        """
        :return: Parameters that its loss trains
        """
        assert self.features_extractor is not None
        without = set() if self.trains_memory else set(self.features_extractor.parameters())
        return [parameter for parameter in self.parameters() if parameter not in without]


class MemoryActor(_Reader, Actor):
    """SAC's actor, which reads the episodic memory."""

    features_extractor: TransformerExtractor


class MemoryCritic(_Reader, ContinuousCritic):
    """
    SAC's critics, which read the episodic memory and an action. They share one transformer.

    :param layer_norm: Whether hidden layers are normalised
    :param kwargs: Arguments of SB3's class
    """

    features_extractor: TransformerExtractor

    def __init__(self, layer_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if layer_norm:
            n_inputs = kwargs["features_dim"] + int(np.prod(kwargs["action_space"].shape))
            for index in range(self.n_critics):
                layers = create_mlp(
                    n_inputs, 1, kwargs["net_arch"], kwargs["activation_fn"], post_linear_modules=[nn.LayerNorm]
                )
                self.q_networks[index] = nn.Sequential(*layers)
                self.add_module(f"qf{index}", self.q_networks[index])

    def forward(self, obs: PolicyInput, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        :param obs: Memories
        :param actions: Actions scaled to [-1, 1], (B, A)
        :return: Values of each critic, (B, 1)
        """
        return self.q_values(self.extract_features(obs, self.features_extractor), actions)

    def q_values(self, features: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        :param features: Episodic memories, (B, ``d_model``)
        :param actions: Actions scaled to [-1, 1], (B, A)
        :return: Values of each critic, (B, 1)
        """
        joined = th.cat([features, actions], dim=1)
        return tuple(q_network(joined) for q_network in self.q_networks)


class TransformerSACPolicy(MemoryPolicy, SACPolicy):
    """
    Actor and critics of SAC over a causal transformer, which reads the newest observations, or all of them. The action
    joins the critics after the memory.

    :param observation_space: Observation space
    :param action_space: Box with finite bounds
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: Hidden layers of the heads of actor and critics, or a dictionary with the keys ``"pi"`` and
        ``"qf"``; [256, 256] if None
    :param activation_fn: Activation function of the heads
    :param use_sde: Whether to use State Dependent Exploration or not
    :param log_std_init: Initial value for the log standard deviation, with gSDE
    :param use_expln: Use ``expln()`` function instead of ``exp()`` to ensure a positive standard deviation, with gSDE
    :param clip_mean: Clip the mean output when using gSDE to avoid numerical instability
    :param features_extractor_class: Features extractor of one token, as in :class:`~sb3_trmrl.TrMRLPolicy`
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor.
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param optimizer_class: The optimizer to use, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer. Adam's
        epsilon is PyTorch's 1e-8 by default instead of SB3's 1e-5, and ``fused`` is on.
    :param n_critics: Number of critic networks to create. They share a transformer
    :param share_features_extractor: Whether actor and critics share one transformer. By default, each side has its own.
        The target critics always have a copy of their own, which follows slowly
    :param shared_memory_loss: With a shared transformer, the loss that trains it: ``"critic"`` (the actor reads the
        memory without training it) or ``"actor"`` (as SB3's SAC does with a shared features extractor)
    :param critic_layer_norm: Whether the hidden layers of the critics' heads are normalised
    :param context_length: Number of tokens N in the window, 16 if None; with ``memory="full"`` the number of newest
        tokens that each layer attends to, 1,024 if None
    :param d_model: Width of the working memories
    :param n_layers: Number of transformer layers
    :param n_heads: Number of attention heads, divides ``d_model``
    :param dim_feedforward: Hidden units of the position-wise networks
    :param initialization: ``"tfixup"`` (the paper), ``"xavier"`` or ``"default"`` (PyTorch's)
    :param layer_norm: LayerNorm in the transformer: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    :param positional_encoding: ``"sinusoidal"`` (the paper, and the default with a window), ``"learned"``,
        ``"relative"`` (the default with ``memory="full"``) or ``"none"``
    :param embedding_arch: Hidden ReLU layers of the embedding phi before its linear layer
    :param reset_memory_on: ``"trial"``: the memory is emptied only at the start of SB3's episodes. ``"episode"``: also
        where ``prev_done`` of a Dict observation is positive
    :param memory: ``"window"``: the newest N observations; None is the same. ``"full"``: all observations since the
        memory was emptied
    :raises TypeError: if an argument has the wrong type, or the action space is not a Box
    :raises ValueError: if an argument is out of range, or the actions are not bounded
    """

    actor: MemoryActor
    critic: MemoryCritic
    critic_target: MemoryCritic

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        use_sde: bool = False,
        log_std_init: float = -3,
        use_expln: bool = False,
        clip_mean: float = 2.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        shared_memory_loss: str = "critic",
        critic_layer_norm: bool = False,
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
        memory: str | None = "window",
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, POLICY_CHECKS)
        check_spaces(observation_space, action_space)
        check_bounded_box(action_space, "TransformerSAC")
        arguments["memory"] = kind_of_memory(memory)
        self._set_memory(arguments)
        self.shared_memory_loss = check_option(
            "shared_memory_loss", arguments.pop("shared_memory_loss"), ("critic", "actor")
        )
        self.critic_layer_norm = arguments.pop("critic_layer_norm")
        super().__init__(**arguments)

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor = self.make_actor()
        is_shared = self.share_features_extractor
        self.critic = self.make_critic(self.actor.features_extractor if is_shared else None)
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        # A live memory stores what the actor's transformer has computed, and nothing for others
        self.critic_target.features_extractor.number = 1
        self.critic.features_extractor.number = 0 if is_shared else 1
        self.actor.trains_memory = not is_shared or self.shared_memory_loss == "actor"
        self.critic.trains_memory = not is_shared or self.shared_memory_loss == "critic"
        for part in (self.actor, self.critic):
            part.optimizer = self._make_optimizer(part.trained_parameters(), lr_schedule)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> MemoryActor:
        actor = MemoryActor(**self._update_features_extractor(self.actor_kwargs, features_extractor))
        actor.kind = self._kind
        return actor

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> MemoryCritic:
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        critic = MemoryCritic(layer_norm=self.critic_layer_norm, **kwargs)
        critic.kind = self._kind
        return critic

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "shared_memory_loss": self.shared_memory_loss,
            "critic_layer_norm": self.critic_layer_norm,
        }

    @property
    def transformers(self) -> list[TransformerExtractor]:
        """The actor's transformer: the critics do not act"""
        return [self.actor.features_extractor]
