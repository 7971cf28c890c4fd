"""Reading and limiting memory: ``/proc``, trees of processes, the meter, giving memory back."""
