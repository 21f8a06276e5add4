"""
Transformer memory and meta-reinforcement learning for Stable-Baselines3.

Importing the package registers its environments with Gymnasium.
"""

from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy

__version__ = "0.1.0"

__all__ = ["TrMRLPolicy", "TransformerPPO"]
