"""What policies of all algorithms with a memory share: the settings of the transformers, the live memory, acting."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import is_vectorized_observation

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION
from sb3_trmrl.algorithms.transitions import checked_starts
from sb3_trmrl.common.checks import check_bool, check_finite, check_keywords, check_option, short_repr
from sb3_trmrl.memory.encoder import EncoderTrace
from sb3_trmrl.memory.extractor import TransformerExtractor, default_token_extractor
from sb3_trmrl.memory.interface import Batch, Memory, MemoryKind
from sb3_trmrl.memory.kinds import MEMORY_KINDS
from sb3_trmrl.memory.tokens import Tokens, first_array, inner_starts, map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory

#: Arguments of the policy that its transformers take
_TRANSFORMER_KWARGS = (
    "context_length",
    "d_model",
    "n_layers",
    "n_heads",
    "dim_feedforward",
    "initialization",
    "layer_norm",
    "positional_encoding",
    "embedding_arch",
)
#: Arguments of Adam that choose its implementation
_ADAM_LOOPS = {"fused", "foreach", "differentiable"}

#: What policies read: a live memory, a minibatch of memories, or plain observations
PolicyInput = Memory | Batch | Tokens


def as_batch(kind: MemoryKind, obs: PolicyInput) -> Batch:
    """
    Return what transformers read.

    :param kind: Kind of the policy's memory
    :param obs: Memories, or observations that are read as the first of an episode
    :return: A batch of memories
    """
    if isinstance(obs, (th.Tensor, dict)):
        return kind.of_single_tokens(obs)
    batch: Batch = obs.batch() if hasattr(obs, "batch") else obs
    return batch


class MemoryPolicy(BasePolicy):
    """
    Base class of policies that read memories. A policy has it before SB3's class, and calls :meth:`_set_memory` before
    the constructor of SB3's class.
    """

    def _set_memory(self, arguments: dict[str, Any]) -> None:
        """Set the kind of memory and the transformers' settings, and remove them from the policy's arguments."""
        self.memory = arguments.pop("memory")
        self._kind = MEMORY_KINDS[self.memory]
        self.reset_memory_on = check_option("reset_memory_on", arguments.pop("reset_memory_on"), ("episode", "trial"))
        self.transformer_kwargs: dict[str, Any] = {name: arguments.pop(name) for name in _TRANSFORMER_KWARGS}
        for name in ("context_length", "positional_encoding"):
            if self.transformer_kwargs[name] is None:
                self.transformer_kwargs[name] = getattr(self._kind, name)
        self.context_length: int = self.transformer_kwargs["context_length"]
        self._warned_without_memory = False
        arguments["features_extractor_class"] = checked_token_extractor(
            arguments["observation_space"],
            arguments["features_extractor_class"],
            arguments["features_extractor_kwargs"],
            arguments["normalize_images"],
        )
        check_keywords(
            "optimizer_kwargs", arguments["optimizer_kwargs"], arguments["optimizer_class"], ("params", "lr")
        )
        # With None, SB3 sets Adam's epsilon to 1e-5, which is more than the gradients of many parameters
        arguments["optimizer_kwargs"] = arguments["optimizer_kwargs"] or {}

    # -- Building ----------------------------------------------------------------------------------------------------

    def make_features_extractor(self) -> TransformerExtractor:
        """Helper method to create a transformer and the features extractor of its tokens."""
        return TransformerExtractor(
            self.observation_space,
            self._make_token_extractor(),
            **self.transformer_kwargs,
            bounded_positions=self._kind.bounded_positions,
            normalize_images=self.normalize_images,
        )

    def _make_optimizer(self, parameters: Any, lr_schedule: Schedule) -> th.optim.Optimizer:
        """Return an optimizer of parameters or groups of them."""
        kwargs = dict(self.optimizer_kwargs)
        if self.optimizer_class in (th.optim.Adam, th.optim.AdamW) and not _ADAM_LOOPS & set(kwargs):
            kwargs["fused"] = True  # a single pass over the parameters instead of one for each operation
        return self.optimizer_class(parameters, lr=lr_schedule(1), **kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {**self.transformer_kwargs, "memory": self.memory, "reset_memory_on": self.reset_memory_on}
        return {**super()._get_constructor_parameters(), **own}

    def _make_token_extractor(self) -> BaseFeaturesExtractor:
        return super().make_features_extractor()

    @property
    def transformers(self) -> list[TransformerExtractor]:
        """The transformers that read the live memory while acting, that of the actor first"""
        raise NotImplementedError

    # -- Memory ------------------------------------------------------------------------------------------------------

    def empty_memory(self, n_envs: int) -> Memory:
        """
        :param n_envs: Number of environments
        :return: A memory without tokens
        """
        return self._kind.memory.empty(self.observation_space, n_envs, self.transformers)

    @property
    def history_length(self) -> int:
        """Number of tokens that a memory depends on, the newest included"""
        return self.context_length if self.memory == "window" else self.transformers[0].receptive_field + 1

    def _empty_state(self, n_envs: int) -> Memory:
        """Return a memory without tokens for ``predict``, which needs the actor's transformer only."""
        return self._kind.memory.empty(self.observation_space, n_envs, self.transformers[:1])

    def remember(self, memory: Memory, obs: Tokens, episode_starts: np.ndarray) -> Memory:
        """
        Write the newest observations to the memory, which is emptied first where an episode begins (see
        ``reset_memory_on``).

        :param memory: Memory before these observations
        :param obs: Observation tensors, (B, \\*observation), or a dictionary
        :param episode_starts: Mask of environments in which an SB3 episode begins, (B,)
        :return: Memory that ends with these observations
        """
        starts = th.as_tensor(episode_starts, dtype=th.bool, device=self.device)
        if self.reset_memory_on == "episode" and (inner := inner_starts(obs, len(starts))) is not None:
            starts = starts | inner
        return memory.write(obs, starts, self.transformers)

    # -- Acting ------------------------------------------------------------------------------------------------------

    def set_training_mode(self, mode: bool) -> None:
        """
        :param mode: Whether dropout and batch normalization behave as in training
        """
        if mode != self.training:  # walking through all modules would take a third of the time of a prediction
            super().set_training_mode(mode)

    def obs_to_tensor(self, observation: Any) -> tuple[Any, bool]:
        if hasattr(observation, "batch"):  # a memory, from `predict`
            return observation.to(self.device), True
        return super().obs_to_tensor(observation)

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Memory]:
        """
        Get the policy action from an observation and the memory of those before it.

        Use it as in RecurrentPPO: pass the returned state to the next call, with ``episode_start`` true where an
        episode (in meta-RL, a trial) begins. If both are None, the action depends on this observation only.

        :param observation: the input observation, of one environment or of any number of them
        :param state: The memory returned by the last call, None for an empty one
        :param episode_start: Mask of environments whose memory is emptied first, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions.
        :return: the model's action and the memory that ends with this observation
        :raises ValueError: if ``state`` belongs to another number of environments, or an observation is not finite
        """
        memory, vectorized = self._remember_next(observation, state, episode_start, deterministic)
        actions, _ = super().predict(memory, deterministic=deterministic)  # type: ignore[arg-type]
        return actions if vectorized else actions.squeeze(axis=0), memory.numpy()

    def _remember_next(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool, unclaimed: Any = None
    ) -> tuple[Memory, bool]:
        """
        Check the arguments of ``predict``. Return the memory that ends with the observation, and whether that is
        vectorized. ``unclaimed`` replaces a missing state that belongs to as many environments.
        """
        if isinstance(observation, tuple):  # Gym's (obs, info): SB3 raises an explanatory error
            super().predict(observation)  # type: ignore[arg-type]
        if state is None and episode_start is None and not self._warned_without_memory:
            self._warned_without_memory = True
            warnings.warn(
                "predict() was called without `state` and `episode_start`: the action depends on this observation "
                "only. To use the memory, pass the returned state to the next call, and `episode_start` (true at the "
                "first step).",
                UserWarning,
                stacklevel=3,
            )
        check_bool("deterministic", deterministic)
        self.set_training_mode(False)  # before anything is computed: the full memory encodes the observation
        self._check_observation(observation)
        obs, vectorized = self.obs_to_tensor(observation)
        check_finite("observation", map_tokens(lambda tensor: tensor.cpu().numpy(), obs), MAX_OBSERVATION)
        n_envs = len(first_array(obs))
        if state is None and unclaimed is not None and len(unclaimed.lengths) == n_envs:
            state = unclaimed
        memory = self._empty_state(n_envs) if state is None else self._check_state(state, n_envs)
        starts = checked_starts(episode_start, n_envs)
        with th.no_grad():
            return self.remember(memory, obs, starts), vectorized

    def _check_observation(self, observation: Any) -> None:
        """Raise a ValueError if an observation is not numeric, or its keys or shapes are not those of the space."""
        space = self.observation_space
        entries = observation if isinstance(observation, dict) else {"": observation}
        keys = list(space.spaces) if isinstance(space, spaces.Dict) else [""]
        if set(entries) != set(keys):
            allowed = f"a dictionary with the keys {keys}" if isinstance(space, spaces.Dict) else "an array"
            given = f"one with {list(entries)}" if isinstance(observation, dict) else type(observation).__name__
            raise ValueError(f"`observation` must be {allowed}, got {given}")
        for key, entry in entries.items():
            array, own = np.asarray(entry), space.spaces[key] if isinstance(space, spaces.Dict) else space
            if array.dtype.kind not in "biuf":
                raise ValueError(f"`observation` must be numbers, got {short_repr(observation)}")
            if not is_image_space(own):
                is_vectorized_observation(array, own)  # SB3 looks at the first entries of a dictionary only

    def _check_state(self, state: tuple[Any, ...], n_envs: int) -> Memory:
        """Return a memory as tensors. Raise a ValueError unless it fits this policy and ``n_envs`` observations."""
        empty = self._empty_state(n_envs)
        try:
            memory = type(empty)(*state).to(self.device)
            problem = memory.shape_mismatch(empty)
        except (TypeError, AttributeError, RuntimeError, IndexError):
            kind = f"a {type(empty).__name__} of {n_envs} environments"
            raise ValueError(f"`state` must be a state from predict(), {kind}, got {short_repr(state)}") from None
        if problem:
            raise ValueError(f"`state` has {problem} for {n_envs} observation(s)")
        return memory.copy()

    # -- Analysis ----------------------------------------------------------------------------------------------------

    def trace(self, memory: WorkingMemory) -> EncoderTrace:
        """
        Return what the actor's transformer computes in every layer, for analysis.

        :param memory: The state that ``predict`` returned. With ``memory="full"``, whose state does not contain earlier
            tokens, a ``WorkingMemory(tokens, lengths)`` of the observations since the memory was emptied,
            (B, T, \\*observation)
        :return: Memories, attention weights and values at every slot; undefined at slots that are not filled
        :raises TypeError: if it is another kind of memory
        """
        if not isinstance(memory, WorkingMemory):
            raise TypeError(
                f"`memory` must be a WorkingMemory, got {type(memory).__name__}. The state of memory='full' contains "
                "keys and values instead of tokens: pass WorkingMemory(tokens, lengths) of the observations since the "
                "memory was emptied"
            )
        self.set_training_mode(False)
        with th.no_grad():
            return self.transformers[0].trace(memory.to(self.device).tokens)


def checked_token_extractor(
    observation_space: spaces.Space[Any],
    extractor_class: type[BaseFeaturesExtractor] | None,
    kwargs: dict[str, Any] | None,
    normalize_images: bool,
) -> type[BaseFeaturesExtractor]:
    """
    Return the class of the features extractor of a token.

    :param observation_space: Observation space of a token
    :param extractor_class: The class that the user has given, or None
    :param kwargs: Its keyword arguments
    :param normalize_images: Whether images are integers that are divided by 255
    :raises TypeError: if the class does not take these arguments
    """
    if extractor_class is None:
        extractor_class = default_token_extractor(observation_space, normalize_images)
    space_name = list(inspect.signature(extractor_class).parameters)[:1]
    check_keywords("features_extractor_kwargs", kwargs, extractor_class, space_name)
    return extractor_class
