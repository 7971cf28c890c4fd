"""Measurements. Ratios come from one run; nothing in here decides a test."""
