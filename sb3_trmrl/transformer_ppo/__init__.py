from sb3_trmrl.transformer_ppo.policies import (
    CnnTransformerPolicy,
    MlpTransformerPolicy,
    MultiInputTransformerPolicy,
    TrMRLPolicy,
)
from sb3_trmrl.transformer_ppo.transformer_ppo import TransformerPPO

__all__ = [
    "CnnTransformerPolicy",
    "MlpTransformerPolicy",
    "MultiInputTransformerPolicy",
    "TrMRLPolicy",
    "TransformerPPO",
]
