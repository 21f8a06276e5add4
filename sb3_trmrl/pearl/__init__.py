"""The algorithm PEARL, its policy and its parts."""

from sb3_trmrl.pearl.pearl import PEARL
from sb3_trmrl.pearl.policies import Adaptation, PEARLPolicy

__all__ = ["PEARL", "Adaptation", "PEARLPolicy"]
