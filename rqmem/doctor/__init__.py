"""``rqmem doctor``: is this machine fit for jobs under a ceiling, and what to do where it is not.

`facts` and `redis_facts` read, `checks` and `redis_checks` make findings of what was read (pure), `selftest`
runs a real worker on jobs of `jobs`, `report` words it all.
"""
