"""The agent's memory: working memories, their causal encoder, and rollout buffers of tokens (paper, section 4)."""
