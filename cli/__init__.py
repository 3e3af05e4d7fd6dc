"""``scanherald …``: the commands, and the wiring of processes."""
