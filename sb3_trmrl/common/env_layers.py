"""The layers of a wrapped environment."""

import gymnasium as gym


def layers_of(env: gym.Env) -> list[gym.Env]:
    """Return the environment and everything that it wraps, the outermost layer first."""
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers
