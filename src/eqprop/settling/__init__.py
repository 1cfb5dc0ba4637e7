"""How a network comes to rest: the order of a sweep, and the solver that repeats it."""
