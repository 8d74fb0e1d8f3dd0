"""TFDS dataset builders for face parsing.

These are `celebamask_hq`, `helen`, `lapa`, `synthetic_faces` and `synthetic_portraits`.

Importing `tfds_builders.<name>` registers that builder with TFDS under `<name>`.
`python -m tfds_builders.prepare <name>` builds it without TensorFlow. `image_folder` builds a data
set from your own images and masks.
"""
