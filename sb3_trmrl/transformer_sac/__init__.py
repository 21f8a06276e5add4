"""The algorithm TransformerSAC and its policy."""

from sb3_trmrl.transformer_sac.policies import TransformerSACPolicy
from sb3_trmrl.transformer_sac.transformer_sac import TransformerSAC

__all__ = ["TransformerSAC", "TransformerSACPolicy"]
