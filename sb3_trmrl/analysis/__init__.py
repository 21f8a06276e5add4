"""The paper's analyses of trained agents, one module each."""
