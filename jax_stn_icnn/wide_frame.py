"""Place of the wide frame, which contains hair, neck and shoulders.

Plain Python, for networks and photos alike; `faces.framing.wide_frame` computes the frame.
"""

WIDE_SIDE = 2.0  # side of the wide frame over the side of the frame
WIDE_DOWN = 0.125  # center of the wide frame below that of the frame, in sides of the frame
