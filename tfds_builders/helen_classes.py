"""The eleven classes of HELEN, LaPa and the synthetic faces; left is the viewer's left."""

# The order of HELEN's files lbl00 .. lbl10 and of LaPa's ids.
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
