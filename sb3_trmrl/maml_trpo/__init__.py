"""The algorithm MAMLTRPO, its policy and its parts."""

from sb3_trmrl.maml_trpo.maml_trpo import MAMLTRPO
from sb3_trmrl.maml_trpo.policies import MAMLPolicy

__all__ = ["MAMLTRPO", "MAMLPolicy"]
