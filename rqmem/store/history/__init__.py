"""The history of job types: samples, runs, figures. It may be cleared; no running job needs it."""
