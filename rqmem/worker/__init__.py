"""The worker: it hands out jobs and watches them. `horse` runs the code of users."""
