"""Compiling: the cache of programs on disk, and the memory that it takes."""
