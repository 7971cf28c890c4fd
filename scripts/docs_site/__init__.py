"""The docs as a site (``make docs``). ``mkdocs.yml`` says what is in it; `hooks` adds what lies outside ``docs/``."""
