"""Compilation: the cache of programs on disk, inlining, and memory."""
