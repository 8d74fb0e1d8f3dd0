"""The eleven classes of HELEN and of the synthetic faces; left is the viewer's left."""

# The order of HELEN's files lbl00 .. lbl10.
CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
    "hair",
)
