"""What the reference application runs on in a demo or a test: made-up customers, and a made-up Retell.

`jobs` never imports this package, and nothing here needs Redis.
"""
