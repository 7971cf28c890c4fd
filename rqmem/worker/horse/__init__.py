"""The work-horse: the process that runs the code of users."""
