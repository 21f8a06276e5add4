"""Positions of tokens: added to them, or turning queries and keys."""

import torch as th

from sb3_trmrl.common.encoder import Attend


def sinusoidal_positions(positions: th.Tensor, d_model: int) -> th.Tensor:
    """
    Vaswani et al. (2017), section 3.5: sine and cosine of the position at geometrically spaced frequencies.

    :param positions: Positions, (N,)
    :param d_model: Width D, even
    :return: (N, D)
    """
    angles = _angles(positions, d_model)
    return th.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def with_rotary_positions(attend: Attend, positions: th.Tensor) -> Attend:
    """
    Su et al. (2021, "RoFormer"), section 3.4.2: queries and keys are turned by angles that grow with the position, so
    that scores depend on how far apart two tokens are, and the tokens themselves stay as they are.

    :param attend: Attention of queries, keys and values, (T, H, D / H) each, D / H even
    :param positions: Positions of the tokens, (T,)
    :return: The same with positions
    """

    def turned(x: th.Tensor) -> th.Tensor:
        angles = _angles(positions, x.shape[-1])[:, None]
        sines, cosines = angles.sin(), angles.cos()
        first, second = x.chunk(2, dim=-1)
        return th.cat((first * cosines - second * sines, first * sines + second * cosines), dim=-1)

    return lambda q, k, v: attend(turned(q), turned(k), v)


def _angles(positions: th.Tensor, width: int) -> th.Tensor:
    """
    :param positions: Positions, (T,)
    :param width: Even
    :return: Position times geometrically spaced frequencies, (T, width / 2)
    """
    return positions[:, None] * 10_000.0 ** (-th.arange(0, width, 2, device=positions.device) / width)
