"""Methods of algorithms that packages above them implement."""

#: Entry points, ``"module:function"``, by the name of the method; ``sb3_trmrl`` sets them when it is imported
IMPLEMENTATIONS: dict[str, str] = {}
