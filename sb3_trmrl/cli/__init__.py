"""
The commands of ``python -m sb3_trmrl``, one module each: they call the package, print and write.

Their parsers are in one module, which imports neither PyTorch nor the modules of the commands.
"""
