"""``python -m tests.pool_under_pressure FILE pool ...``: the program rqmem, with a file for /proc/pressure/memory."""

from __future__ import annotations

import sys
from pathlib import Path

from rqmem.cli import main
from rqmem.measure import host_memory

if __name__ == "__main__":
    host_memory.PRESSURE = Path(sys.argv.pop(1))
    main(prog_name="rqmem")
