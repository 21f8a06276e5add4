"""The interface of an agent that plays trials."""

from typing import Any, Protocol


class Agent(Protocol):
    """An SB3 model, one of its policies, or any other object with SB3's ``predict``."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As in Stable-Baselines3"""


def check_agent(model: Any, name: str = "model") -> None:
    """Raise ``TypeError`` if the argument ``name`` has no method ``predict``."""
    if isinstance(model, type) or not callable(getattr(model, "predict", None)):
        raise TypeError(f"`{name}` must be an agent with SB3's method predict, got {model!r}")
