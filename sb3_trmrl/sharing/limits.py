"""
What an exported agent may ask for. Every limit is checked before anything of that size is allocated, so that no file
takes a gigabyte; they are far above any agent that PPO trains.
"""

#: Bytes of a whole file; its tensors and the policy are built beside it, so loading takes about three times as much
MAX_FILE_BYTES = 128 * 2**20
#: Bytes of a file's header, whose parsed form is about thirty times as large
MAX_HEADER_BYTES = 2 * 2**20
#: Lists and objects within each other
MAX_JSON_DEPTH = 16
#: Digits of an integer, sign included
MAX_DIGITS = 20
MAX_TENSORS = 8192
#: Axes of a tensor or a space
MAX_RANK = 8
#: Numbers in one observation or one action, one-hot classes counted
MAX_VALUES = 2 * 2**20
#: Keys of a Dict space
MAX_KEYS = 256
#: Characters of a name: a key, an environment id
MAX_NAME = 256
#: Transformer layers
MAX_LAYERS = 64
#: Units of any layer
MAX_WIDTH = 2**16
#: Hidden layers of a head, or of the embedding
MAX_HIDDEN_LAYERS = 32
#: Slots of a window, whose attention grows with their square; and tokens that a full memory reaches back
MAX_WINDOW = 4096
MAX_CONTEXT = 2**16
#: Numbers in the table of positions, ``context_length * d_model``
MAX_POSITIONS = 2 * 2**20
#: Numbers in gSDE's matrix of noise, ``net_arch["pi"][-1]`` times actions: about five of them are made
MAX_NOISE = 2**20
#: Bytes of the memory of one environment
MAX_MEMORY_BYTES = 512 * 2**20
