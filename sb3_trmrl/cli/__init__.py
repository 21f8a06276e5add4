"""The commands of ``python -m sb3_trmrl``, one module each: they read arguments, call the package, print and write."""
