"""Commands about trained agents: evaluate, analyze, compare, render."""
