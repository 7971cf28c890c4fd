"""The reference application: the jobs of a company with outbound call campaigns, and their database.

It is in the repository next to `rqmem`, and not in the wheel. Nothing in `rqmem` imports it.
"""
