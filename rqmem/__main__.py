"""``python -m rqmem``: the same as the command ``rqmem``."""

from rqmem.cli import main

if __name__ == "__main__":
    main(prog_name="rqmem")
