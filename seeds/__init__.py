"""Test data for the reference application: made-up customers, and a made-up Retell.

`jobs` never imports this package, and nothing here needs Redis.
"""
