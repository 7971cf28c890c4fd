"""The reference application: jobs a company with outbound call campaigns runs, and their database.

Lives in the repository beside `rqmem` and is no part of its wheel. Nothing in `rqmem` imports it.
"""
