from sb3_trmrl.varibad.policies import VariBADPolicy
from sb3_trmrl.varibad.varibad import VariBAD

__all__ = ["VariBAD", "VariBADPolicy"]
