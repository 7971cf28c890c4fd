"""The pages of the reference, made from the code. `scripts.docs_tables` writes them.

One module a page: ``commands`` (from click), ``python_api`` (signatures and docstrings, read by griffe), ``documents``
(JSON, from the golden files), ``events``, ``metrics``, ``redis_keys`` and ``log_lines``. All are pure but for reading
files of the repository. ``markdown`` has what they share.
"""
