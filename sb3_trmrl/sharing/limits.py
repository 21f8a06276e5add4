"""
Limits on what a file may request. Each is checked before anything of that size is allocated, so that loading any file
takes less than a gigabyte. They are far above the sizes of agents that PPO can train. Bounds of single fields are
declared in their records.
"""

#: Bytes of a file. The tensors and the policy are built beside it, so loading takes about three times as much
MAX_FILE_BYTES = 128 * 2**20
#: Bytes of the header of a file. Its parsed form is about thirty times as large
MAX_HEADER_BYTES = 2 * 2**20
#: Nested lists and objects
MAX_JSON_DEPTH = 16
#: Digits of an integer, including the sign
MAX_DIGITS = 20
MAX_TENSORS = 8192
#: Axes of a tensor or a space
MAX_RANK = 8
#: Numbers in one observation or one action; a discrete value counts as its one-hot encoding
MAX_VALUES = 2 * 2**20
#: Keys of a Dict space
MAX_KEYS = 256
#: Characters of a key or an environment id
MAX_NAME = 256
#: Tokens of a window, whose attention grows with their square
MAX_WINDOW = 4096
#: Numbers in the positional encodings, ``context_length * d_model``
MAX_POSITIONS = 2 * 2**20
#: Numbers in the exploration matrix of gSDE, ``net_arch["pi"][-1]`` times actions. About five of them are allocated
MAX_NOISE = 2**20
#: Bytes of the memory of one environment
MAX_MEMORY_BYTES = 512 * 2**20
