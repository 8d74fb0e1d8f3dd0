"""Runs all cells of the notebook."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("photo_to_training.ipynb")


def test_every_cell_runs(in_clone):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": in_clone}}).execute()
    assert (in_clone / "runs/notebook/weights.safetensors").exists()
