"""What plays trials."""

from typing import Any, Protocol


class Agent(Protocol):
    """What plays: an SB3 model, one of its policies, or anything else that acts like them."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As in Stable-Baselines3"""


def check_agent(model: Any, name: str = "model") -> None:
    """
    :param model: What the user gave
    :param name: Name of the argument, for the message
    :raises TypeError: if it cannot play
    """
    if isinstance(model, type) or not callable(getattr(model, "predict", None)):
        raise TypeError(f"`{name}` must be an agent with SB3's method predict, got {model!r}")
