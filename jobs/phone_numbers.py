"""Phone numbers in the international form, E.164, as the API and the providers of messages want them."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
