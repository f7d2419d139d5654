"""Adapters for other libraries, one a module; none is imported unless it is asked for."""
