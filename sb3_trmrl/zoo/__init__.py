"""
rl-zoo3 with TransformerPPO: training, watching, recording and plotting from the command line.

Importing this package changes nothing; :func:`sb3_trmrl.zoo.registration.register` is the only place that touches
rl-zoo3.
"""
