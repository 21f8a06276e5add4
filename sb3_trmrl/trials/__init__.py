"""Tasks and trials: the wrappers that turn a family of tasks into a meta-reinforcement-learning problem."""
