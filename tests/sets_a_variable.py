"""A module that counts on what it set when it was imported."""

import os

os.environ["SET_AT_IMPORT"] = "set at import"
