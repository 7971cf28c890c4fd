"""What rqmem remembers in Redis: `keys` names, `records` are the values, `writer` writes, `reader` reads."""
