"""
Everything about rl-zoo3: training with its experiment manager, its scripts, and the folders of its runs.

Importing this package changes nothing; :func:`sb3_trmrl.zoo.registration.register` is the only place that changes
rl-zoo3.
"""
