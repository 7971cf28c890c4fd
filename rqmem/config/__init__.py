"""The configuration: one frozen value (`settings`), read from environment, files and options (`load`)."""
