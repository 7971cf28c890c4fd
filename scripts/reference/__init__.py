"""The pages of the reference, made from the code. `scripts.docs_tables` writes them.

One module a page: ``commands`` (from click), ``python_api`` (signatures and docstrings, read by griffe), ``documents``
(JSON, from the golden files), ``events``, ``metrics`` and ``redis_keys``. All are pure but for reading files of the
repository. ``markdown`` has what they share. ``log_lines`` checks a page that is written by hand.
"""
