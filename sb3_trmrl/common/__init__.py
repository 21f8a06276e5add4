"""Parts that are not tied to one algorithm: memory, buffers, layers, wrappers."""
