"""The paper's experiments, and those on what goes beyond it, as commands."""
