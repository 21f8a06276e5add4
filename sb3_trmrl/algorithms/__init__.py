"""What the algorithms share beyond Stable-Baselines3."""
