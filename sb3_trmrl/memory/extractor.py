"""
The agent's memory as an SB3 features extractor: tokens in, episodic memory out.

Shapes: B batch, N slots of the window, D width of the model (``d_model``), H heads, F features of a token.
"""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_trmrl.common.checks import check_instance, check_option, check_positive_int
from sb3_trmrl.memory import short_windows
from sb3_trmrl.memory.encoder import LAYER_NORMS, Attend, EncoderTrace, TransformerEncoder
from sb3_trmrl.memory.full_memory import KeyValueCache
from sb3_trmrl.memory.sequences import Sequences, attend_within_sequences
from sb3_trmrl.memory.windows import Windows

INITIALIZATIONS = ("tfixup", "xavier", "default")
MEMORIES = ("window", "full")
POSITIONAL_ENCODINGS = ("sinusoidal", "learned", "none")


def default_token_extractor(
    observation_space: spaces.Space[Any], normalize_images: bool
) -> type[BaseFeaturesExtractor]:
    """
    :param observation_space: Observation space of a token
    :param normalize_images: False if images come as floats already
    :return: The features extractor of SB3's MultiInputPolicy, CnnPolicy or MlpPolicy, whichever fits
    """
    if isinstance(observation_space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(observation_space, normalized_image=not normalize_images):
        shape = observation_space.shape or ()
        sides = shape[1:] if is_image_space_channels_first(observation_space) else shape[:2]  # type: ignore[arg-type]
        if min(sides) >= 36:  # NatureCNN has no output below
            return NatureCNN
    return FlattenExtractor


def sinusoidal_positions(positions: th.Tensor, d_model: int) -> th.Tensor:
    """
    Vaswani et al. (2017), section 3.5: sine and cosine of the position at geometrically spaced frequencies.

    :param positions: Positions, (N,)
    :param d_model: Width D, even
    :return: (N, D)
    """
    frequencies = 10_000.0 ** (-th.arange(0, d_model, 2, device=positions.device) / d_model)
    angles = positions[:, None] * frequencies
    return th.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class TransformerExtractor(BaseFeaturesExtractor):
    """
    The agent's memory: features of each token, working memories phi, causal encoder, episodic memory (figure 1).

    :param observation_space: Observation space of one token
    :param token_extractor: SB3 features extractor applied to each token (flattening by default)
    :param context_length: Number of working memories N in a window
    :param d_model: Width D of the working memories
    :param n_layers: Number of layers L
    :param n_heads: Number of attention heads, divides ``d_model``
    :param dim_feedforward: Hidden units of the position-wise networks
    :param initialization: ``"tfixup"`` (the paper), ``"xavier"`` or ``"default"`` (PyTorch's)
    :param layer_norm: ``"none"`` (the paper), ``"pre"`` or ``"post"``
    :param positional_encoding: ``"sinusoidal"`` (the paper), ``"learned"`` or ``"none"``, of the slot index
    :param embedding_arch: Hidden ReLU layers of phi before its linear layer, none by default
    :param memory: ``"window"`` (the paper), or ``"full"``: in every layer a token sees the last ``context_length``
        tokens since the memory was emptied, and its position counts from there
    :raises TypeError: if a size is not an integer
    :raises ValueError: if a size is below 1, an option is unknown, ``n_heads`` does not divide ``d_model`` or an odd
        ``d_model`` meets sinusoidal positions
    """

    positions: th.Tensor

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
        memory: str = "window",
    ) -> None:
        sizes: dict[str, Any] = dict(context_length=context_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads)
        for name, size in {**sizes, "dim_feedforward": dim_feedforward}.items():
            check_positive_int(name, size)
        if d_model % n_heads:
            raise ValueError(f"`n_heads` must divide `d_model`, got n_heads={n_heads} and d_model={d_model}")
        check_instance("embedding_arch", embedding_arch, (list, tuple, type(None)), "a list of layer sizes")
        kinds = (BaseFeaturesExtractor, type(None))
        check_instance("token_extractor", token_extractor, kinds, "a BaseFeaturesExtractor or None")
        check_instance("observation_space", observation_space, spaces.Space, "a space of Gymnasium")
        check_option("initialization", initialization, INITIALIZATIONS)
        check_option("layer_norm", layer_norm, LAYER_NORMS)
        check_option("positional_encoding", positional_encoding, POSITIONAL_ENCODINGS)
        if positional_encoding == "sinusoidal" and d_model % 2:
            raise ValueError(f"`d_model` must be even with sinusoidal positions, got {d_model}")

        check_option("memory", memory, MEMORIES)
        if memory == "full" and positional_encoding == "learned":
            raise ValueError("`positional_encoding` 'learned' needs memory='window': with 'full' positions have no end")

        super().__init__(observation_space, features_dim=d_model)
        self.initialization = initialization
        self.context_length = context_length
        self.positional_encoding = positional_encoding
        self.memory = memory
        self.token_extractor = token_extractor or FlattenExtractor(observation_space)
        hidden_layers: list[nn.Module] = []
        width = self.token_extractor.features_dim
        for n_units in embedding_arch or []:
            hidden_layers += [nn.Linear(width, check_positive_int("embedding_arch", n_units)), nn.ReLU()]
            width = n_units
        self.embedding = nn.Sequential(*hidden_layers, nn.Linear(width, d_model))
        positions = th.zeros(context_length, d_model)
        if positional_encoding == "learned":
            self.positions = nn.Parameter(positions)
        else:
            if positional_encoding == "sinusoidal":
                positions = sinusoidal_positions(th.arange(context_length), d_model)
            self.register_buffer("positions", positions, persistent=False)
        self.encoder = TransformerEncoder(d_model, n_layers, n_heads, dim_feedforward, layer_norm)
        self.reset_parameters()

    @th.no_grad()
    def reset_parameters(self) -> None:
        """
        Initialise embedding and encoder, and leave the token extractor as it is.

        T-Fixup (Huang et al. 2020, section 4; paper section 3.3), for L layers of width d: Xavier for every matrix;
        then W_v, W_o and both feed-forward matrices of each layer times 0.67 L^(-1/4); the input embedding (and learned
        positions, a part of it) Gaussian with standard deviation d^(-1/2), times (9 L)^(-1/4). Biases are 0.
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
        if self.initialization == "tfixup":
            for layer in self.encoder.layers:
                for matrix in layer.matrices_scaled_by_tfixup():
                    matrix.mul_(0.67 * n_layers**-0.25)
            input_embedding = self.embedding[-1].get_parameter("weight")
            nn.init.normal_(input_embedding, std=d_model**-0.5).mul_((9 * n_layers) ** -0.25)
            if isinstance(self.positions, nn.Parameter):
                self.positions.mul_((9 * n_layers) ** -0.25)

    def forward(self, observations: Any, windows: Windows) -> th.Tensor:
        """
        :param observations: Preprocessed ``windows.tokens``, (U, \\*observation), or a dictionary
        :param windows: Which of them stand where in which window
        :return: Episodic memories, (B, D)
        """
        embedded = self.embedding(self.token_extractor(observations))  # (U, D)
        if windows.columns is not None:
            embedded = embedded[windows.columns]
        counts = windows.counts
        slots = th.repeat_interleave(th.tensor(counts)).to(embedded.device)
        memories = embedded + self.positions[slots]  # (T, D), slot after slot
        newest = th.as_tensor(windows.newest_columns(), device=embedded.device)
        if self.encoder.is_short(len(counts), len(windows)):
            episodic = short_windows.encode(self.encoder.layers, memories.t().contiguous(), counts, newest).t()
        else:
            padded = memories[th.as_tensor(windows.padded_columns(), device=embedded.device)]
            episodic = self.encoder(padded, th.as_tensor(windows.lengths(), device=embedded.device))
        return windows.restore_order(episodic)

    # -- Full context ------------------------------------------------------------------------------------------------

    def forward_sequences(self, observations: Any, sequences: Sequences) -> th.Tensor:
        """
        :param observations: Preprocessed ``sequences.tokens``, (T, \\*observation), or a dictionary
        :param sequences: Which sequences they are
        :return: Episodic memories that are read, (B, D)
        """
        attend = attend_within_sequences(sequences.lengths, self.context_length)
        return self._refine(observations, sequences, attend)[sequences.outputs]

    def _refine(self, observations: Any, sequences: Sequences, attend: Attend) -> th.Tensor:
        memories = self.embedding(self.token_extractor(observations))
        if self.positional_encoding == "sinusoidal":
            memories = memories + sinusoidal_positions(sequences.positions, self.features_dim)
        for layer in self.encoder.layers:
            memories = layer(memories, memories, attend)
        episodic: th.Tensor = self.encoder.final_norm(memories)
        return episodic

    def empty_cache(self, n_envs: int) -> KeyValueCache:
        """
        :param n_envs: Number of environments B
        :return: A cache without tokens
        """
        n_heads = self.encoder.layers[0].attention.n_heads
        device = self.positions.device
        return KeyValueCache.empty(len(self.encoder.layers), n_envs, n_heads, self.features_dim // n_heads, device)

    def forward_newest(
        self, observations: Any, steps: th.Tensor, cache: KeyValueCache
    ) -> tuple[KeyValueCache, th.Tensor]:
        """
        :param observations: Preprocessed newest tokens, (B, \\*observation), or a dictionary
        :param steps: Tokens since the memory was emptied, these among them, (B,)
        :param cache: Earlier tokens; these are written to it in place
        :return: The cache, or a larger copy, and the episodic memories, (B, D)
        """
        n_visible = min(int(steps.max()), self.context_length)
        cache = cache.with_slots(n_visible, self.context_length)
        memories = self.embedding(self.token_extractor(observations))
        if self.positional_encoding == "sinusoidal":
            memories = memories + sinusoidal_positions(steps - 1, self.features_dim)
        for index, layer in enumerate(self.encoder.layers):
            memories = layer(memories, memories, cache.attend(index, steps, n_visible, self.context_length))
        return cache, self.encoder.final_norm(memories)

    def fill_cache(self, observations: Any, sequences: Sequences, envs: th.Tensor, n_envs: int) -> KeyValueCache:
        """
        :param observations: Preprocessed ``sequences.tokens``
        :param sequences: Tokens so far, of environments that have any
        :param envs: Environment of each token, (T,)
        :param n_envs: Number of environments B
        :return: The cache after them
        """
        layers: list[tuple[th.Tensor, th.Tensor]] = []
        within = attend_within_sequences(sequences.lengths, self.context_length)

        def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
            layers.append((k, v))
            return within(q, k, v)

        self._refine(observations, sequences, attend)
        n_slots = min(int(sequences.positions.max()) + 1, self.context_length)
        cache = self.empty_cache(n_envs).with_slots(n_slots, self.context_length)
        # Of tokens that share a slot only the newest may be written
        lengths = th.as_tensor(sequences.lengths, device=envs.device)
        last = th.repeat_interleave(sequences.positions[lengths.cumsum(0) - 1], lengths)
        kept = sequences.positions > last - self.context_length
        slots = sequences.positions[kept] % self.context_length
        for index, (keys, values) in enumerate(layers):
            cache.keys[index, envs[kept], slots] = keys[kept]
            cache.values[index, envs[kept], slots] = values[kept]
        return cache

    # -- Analysis ----------------------------------------------------------------------------------------------------

    def trace(self, observations: Any, batch_size: int) -> EncoderTrace:
        """
        :param observations: Preprocessed tokens of B windows or sequences of N slots, (B * N, \\*observation), or a
            dictionary
        :param batch_size: Their number B
        :return: Memories, attention weights and values of every layer at every slot, the working memories being phi
            alone, without positions; slots not filled have no meaning
        """
        memories = self.working_memories(observations, batch_size)
        trace = self.encoder.trace(memories, self.context_length)
        trace.memories[0] = memories - self._slot_positions(memories.shape[1])
        return trace

    def working_memories(self, observations: Any, batch_size: int) -> th.Tensor:
        """
        :param observations: Preprocessed tokens, (B * N, \\*observation), or a dictionary
        :param batch_size: Number of windows B
        :return: phi of each token plus the position of its slot, (B, N, D)
        """
        features = self.token_extractor(observations)  # (B * N, F)
        embedded: th.Tensor = self.embedding(features).unflatten(0, (batch_size, -1))
        return embedded + self._slot_positions(embedded.shape[1])

    def _slot_positions(self, n_slots: int) -> th.Tensor:
        """
        :param n_slots: Number of slots N; with the full memory there may be more than ``context_length``
        :return: Their positions, (N, D)
        """
        if self.memory == "window":
            return self.positions[:n_slots]
        steps = th.arange(n_slots, device=self.positions.device)
        if self.positional_encoding == "sinusoidal":
            return sinusoidal_positions(steps, self.features_dim)
        return th.zeros(n_slots, self.features_dim, device=steps.device)
