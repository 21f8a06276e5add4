"""
The agent's memory as an SB3 features extractor: tokens in, episodic memory out.

Shapes: B batch, T tokens, U stored tokens, N slots of the window, D width of the model (``d_model``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_trmrl.common.checks import check_bool, check_instance, check_option, check_positive_int
from sb3_trmrl.memory.encoder import LAYER_NORMS, EncoderTrace, TransformerEncoder
from sb3_trmrl.memory.interface import Batch
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens

INITIALIZATIONS = ("tfixup", "xavier", "default")
POSITIONAL_ENCODINGS = ("sinusoidal", "learned", "relative", "none")


def default_token_extractor(
    observation_space: spaces.Space[Any], normalize_images: bool
) -> type[BaseFeaturesExtractor]:
    """
    Return the features extractor that SB3 uses for tokens of this kind.

    :param observation_space: Observation space of a token
    :param normalize_images: Whether images are integers that are divided by 255
    :return: The class that MultiInputPolicy (Dict), CnnPolicy (images) or MlpPolicy uses by default
    """
    if isinstance(observation_space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(observation_space, normalized_image=not normalize_images):
        shape = observation_space.shape or ()
        sides = shape[1:] if is_image_space_channels_first(observation_space) else shape[:2]  # type: ignore[arg-type]
        if min(sides) >= 36:  # NatureCNN accepts no smaller images
            return NatureCNN
    return FlattenExtractor


def sinusoidal_positions(positions: th.Tensor, d_model: int) -> th.Tensor:
    """
    Vaswani et al. (2017), section 3.5: sine and cosine of the position at geometrically spaced frequencies.

    :param positions: Positions, (N,)
    :param d_model: Width D, even
    :return: (N, D)
    """
    return encode_positions(positions, sinusoidal_frequencies(d_model, positions.device))


def sinusoidal_frequencies(d_model: int, device: th.device) -> th.Tensor:
    """Return the frequencies of :func:`sinusoidal_positions`, (D / 2,)."""
    return 10_000.0 ** (-th.arange(0, d_model, 2, device=device) / d_model)


def encode_positions(positions: th.Tensor, frequencies: th.Tensor) -> th.Tensor:
    """Return sine and cosine of positions (N,) at frequencies (D / 2,), interleaved, (N, D)."""
    angles = positions[:, None] * frequencies
    return th.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class TransformerExtractor(BaseFeaturesExtractor):
    """
    The agent's memory: features of each token, working memories phi, causal encoder, episodic memory (figure 1).

    Its input is a :class:`~sb3_trmrl.memory.interface.Batch`, which determines the tokens of each memory.

    :param observation_space: Observation space of one token
    :param token_extractor: SB3 features extractor applied to each token (flattening by default)
    :param context_length: Number of working memories N in a window; with ``memory="full"`` the number of tokens that a
        token attends to in each layer
    :param d_model: Width D of the working memories
    :param n_layers: Number of layers L
    :param n_heads: Number of attention heads, divides ``d_model``
    :param dim_feedforward: Hidden units of the position-wise networks
    :param initialization: ``"tfixup"`` (the paper), ``"xavier"`` or ``"default"`` (PyTorch's)
    :param layer_norm: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    :param positional_encoding: ``"sinusoidal"`` (the paper), ``"learned"``, ``"relative"`` or ``"none"``
    :param embedding_arch: Hidden ReLU layers of phi before its linear layer, none by default
    :param bounded_positions: Whether all positions are below ``context_length``, as in a window
    :param normalize_images: Whether images are divided by 255
    :raises TypeError: if a size is not an integer
    :raises ValueError: if a size is below 1, an option is unknown, ``n_heads`` does not divide ``d_model``, ``d_model``
        is odd with sinusoidal positions, or positions are learned but not bounded
    """

    positions: th.Tensor
    #: Index among the policy's transformers; live memories store their caches in this order
    number: int = 0

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        token_extractor: BaseFeaturesExtractor | None = None,
        context_length: int = 16,
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        dim_feedforward: int = 256,
        initialization: str = "tfixup",
        layer_norm: str = "none",
        positional_encoding: str = "sinusoidal",
        embedding_arch: list[int] | None = None,
        bounded_positions: bool = True,
        normalize_images: bool = True,
    ) -> None:
        sizes: dict[str, Any] = dict(context_length=context_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads)
        for name, size in {**sizes, "dim_feedforward": dim_feedforward}.items():
            check_positive_int(name, size)
        if d_model % n_heads:
            raise ValueError(f"`n_heads` must divide `d_model`, got n_heads={n_heads} and d_model={d_model}")
        check_instance("embedding_arch", embedding_arch, (list, tuple, type(None)), "a list of layer sizes")
        kinds = (BaseFeaturesExtractor, type(None))
        check_instance("token_extractor", token_extractor, kinds, "a BaseFeaturesExtractor or None")
        check_instance("observation_space", observation_space, spaces.Space, "a Gymnasium space")
        check_option("initialization", initialization, INITIALIZATIONS)
        check_option("layer_norm", layer_norm, LAYER_NORMS)
        check_option("positional_encoding", positional_encoding, POSITIONAL_ENCODINGS)
        check_bool("bounded_positions", bounded_positions)
        check_bool("normalize_images", normalize_images)
        if positional_encoding == "sinusoidal" and d_model % 2:
            raise ValueError(f"`d_model` must be even with sinusoidal positions, got {d_model}")
        if positional_encoding == "learned" and not bounded_positions:
            raise ValueError("`positional_encoding` 'learned' needs memory='window': other positions are not bounded")

        super().__init__(observation_space, features_dim=d_model)
        self.initialization = initialization
        self.context_length = context_length
        self.positional_encoding = positional_encoding
        self.normalize_images = normalize_images
        self.token_extractor = token_extractor or FlattenExtractor(observation_space)
        hidden_layers: list[nn.Module] = []
        width = self.token_extractor.features_dim
        for n_units in embedding_arch or []:
            hidden_layers += [nn.Linear(width, check_positive_int("embedding_arch", n_units)), nn.ReLU()]
            width = n_units
        self.embedding = nn.Sequential(*hidden_layers, nn.Linear(width, d_model))
        if positional_encoding == "learned":
            self.positions = nn.Parameter(th.zeros(context_length, d_model))
        else:
            is_table = positional_encoding == "sinusoidal" and bounded_positions
            table = sinusoidal_positions(th.arange(context_length), d_model) if is_table else th.zeros(0, d_model)
            self.register_buffer("positions", table, persistent=False)
        is_relative = positional_encoding == "relative"
        self.encoder = TransformerEncoder(d_model, n_layers, n_heads, dim_feedforward, layer_norm, is_relative)
        self.reset_parameters()

    @th.no_grad()
    def reset_parameters(self) -> None:
        """
        Initialize the embedding and the encoder. The token extractor keeps its parameters.

        T-Fixup (Huang et al. 2020, section 4; paper section 3.3) for L layers of width d: every matrix is drawn by
        Xavier's rule. W_v, W_o and both feed-forward matrices of each layer are then scaled by 0.67 L^(-1/4). The input
        embedding, which learned positions are a part of, is Gaussian with standard deviation d^(-1/2), scaled by
        (9 L)^(-1/4). Biases are 0, relative positions included.
        """
        d_model, n_layers = self.features_dim, len(self.encoder.layers)
        for module in (*self.embedding.modules(), *self.encoder.modules()):
            if isinstance(module, nn.Linear):
                module.reset_parameters()
                if self.initialization != "default":
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        if isinstance(self.positions, nn.Parameter):
            nn.init.normal_(self.positions, std=d_model**-0.5)
        if self.encoder.relative_positions is not None:
            nn.init.zeros_(self.encoder.relative_positions.biases)
        if self.initialization == "tfixup":
            for layer in self.encoder.layers:
                for matrix in layer.matrices_scaled_by_tfixup():
                    matrix.mul_(0.67 * n_layers**-0.25)
            input_embedding = self.embedding[-1].get_parameter("weight")
            nn.init.normal_(input_embedding, std=d_model**-0.5).mul_((9 * n_layers) ** -0.25)
            if isinstance(self.positions, nn.Parameter):
                self.positions.mul_((9 * n_layers) ** -0.25)

    def forward(self, batch: Batch) -> th.Tensor:
        """
        :param batch: B memories
        :return: Their episodic memories, (B, D)
        """
        return batch.encode(self)

    def working_memories(
        self, tokens: Tokens, rows: np.ndarray | None = None, positions: np.ndarray | th.Tensor | None = None
    ) -> th.Tensor:
        """
        Compute phi of some tokens, plus the encoding of their positions.

        :param tokens: Raw observations, (U, \\*observation), or a dictionary
        :param rows: Rows of ``tokens``, integers, (T,); all by default. If the features of tokens are expensive, those
            of a row that occurs several times are computed once
        :param positions: Position of each of these tokens, integers, (T,); no positions are added if None
        :return: Working memories, (T, D)
        """
        inverse = None
        if rows is not None:
            if self.tokens_are_expensive:
                distinct, inverse = np.unique(rows, return_inverse=True)
                rows, inverse = (rows, None) if len(distinct) == len(rows) else (distinct, inverse)
            index = th.as_tensor(rows, device=first_array(tokens).device)
            tokens = map_tokens(lambda stored: stored[index], tokens)
        observations = preprocess_obs(tokens, self._observation_space, normalize_images=self.normalize_images)
        memories: th.Tensor = self.embedding(self.token_extractor(observations))
        if inverse is not None:
            memories = memories[th.as_tensor(inverse, device=memories.device)]
        if positions is None or self.positional_encoding in ("relative", "none"):
            return memories
        return memories + self.position_encodings(th.as_tensor(positions, device=memories.device))

    def position_encodings(self, positions: th.Tensor) -> th.Tensor:
        """
        :param positions: Positions, integers, (T,)
        :return: What is added to tokens at these positions, (T, D)
        """
        if self.positional_encoding in ("relative", "none"):
            return th.zeros(len(positions), self.features_dim, device=positions.device)
        if len(self.positions):
            return self.positions[positions]
        return sinusoidal_positions(positions, self.features_dim)

    @property
    def tokens_are_expensive(self) -> bool:
        """Whether each token passes through additional layers, such as a CNN, before the linear layer of phi"""
        return any(True for _ in self.token_extractor.parameters()) or len(self.embedding) > 1

    @property
    def receptive_field(self) -> int:
        """Number of earlier tokens that an episodic memory depends on, if all layers see ``context_length`` tokens"""
        return len(self.encoder.layers) * (self.context_length - 1)

    @property
    def device(self) -> th.device:
        """Device of the parameters"""
        return self.embedding[-1].get_parameter("weight").device

    def trace(self, tokens: Tokens) -> EncoderTrace:
        """
        Run the encoder and keep every intermediate result, for analysis.

        :param tokens: Raw observations of B windows or sequences of N slots, (B, N, \\*observation), or a dictionary
        :return: Memories, attention weights and values of every layer at every slot. The working memories are phi
            alone, without positions. Unfilled slots are undefined
        """
        batch_size, n_slots = first_array(tokens).shape[:2]
        flat = map_tokens(lambda slots: slots.flatten(0, 1), tokens)
        phi = self.working_memories(flat).unflatten(0, (batch_size, n_slots))
        positions = self.position_encodings(th.arange(n_slots, device=phi.device))
        trace = self.encoder.trace(phi + positions, self.context_length)
        trace.memories[0] = phi
        return trace
