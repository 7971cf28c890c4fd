"""One job and all that is known of it: found by its id (`find`), read (`read`), shown (`story`, `brief`, `schema`).

For ``rqmem inspect`` and ``rqmem status --job``, so that both tell the same figures. Only reads.
"""
