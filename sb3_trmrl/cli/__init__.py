"""
The commands of ``python -m sb3_trmrl``, one module each: they read arguments, call the package, print and write.

The function of a command takes the arguments that follow its name.
"""
