"""Sphinx configuration; ``make doc`` builds the site. See https://www.sphinx-doc.org/en/master/usage/configuration.html"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import sb3_trmrl

project = "sb3_trmrl"
author = "sb3_trmrl contributors"
copyright = author
version = release = sb3_trmrl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["benchmarks", "demo"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "sb3_trmrl"
html_copy_source = False

# A signature of thirty arguments is unreadable in one line. Types stand beside the
# descriptions.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100

# The links into our own modules have to lead somewhere. Those into other packages do
# only with intersphinx, which needs the network: SB3_TRMRL_INTERSPHINX=1 make doc.
nitpicky = True
if os.environ.get("SB3_TRMRL_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
        "stable_baselines3": (
            "https://stable-baselines3.readthedocs.io/en/master",
            None,
        ),
    }
nitpick_ignore_regex = [("py:.*", r"(?!sb3_trmrl\.).*"), ("py:.*", r".*\.Self\w+")]
