"""Place of the wide frame, which contains hair, neck and shoulders, and of the far frame.

The far frame, which contains most of the body, is the wide frame of the wide frame. Plain Python,
for networks and photos alike; `faces.framing.wide_frame` computes the frames.
"""

WIDE_SIDE = 2.0  # side of the wide frame over the side of the frame
WIDE_DOWN = 0.125  # center of the wide frame below that of the frame, in sides of the frame
