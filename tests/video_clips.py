"""Short videos for tests."""

from fractions import Fraction

import numpy as np

SAMPLES = 48_000  # per second


def write_clip(
    path, frames, times=None, rate=10, codec="libx264", pixels="yuv420p", sound=None, rotation=None
):
    """Writes a video.

    Args:
        path: the file; its suffix selects the container.
        frames: RGB, uint8 (frames, height, width, 3).
        times: of the frames, in units of 1 / rate seconds; by default 0, 1, 2, ...
        rate: frames per second.
        codec: encoder of the frames.
        pixels: format of the encoded pixels.
        sound: encoder of a tone as long as the frames at that rate; None for a silent video.
        rotation: in degrees counterclockwise, for viewers.
    """
    import av

    with av.open(str(path), "w") as file:
        pictures = file.add_stream(codec, rate=rate)
        pictures.height, pictures.width = frames[0].shape[:2]
        pictures.pix_fmt = pixels
        if rotation is not None:
            pictures.set_display_rotation(rotation)
        tone = None if sound is None else file.add_stream(sound, rate=SAMPLES, layout="mono")
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            file.mux(pictures.encode(frame))
            if tone is not None:
                count = SAMPLES // rate
                wave = np.int16(8000 * np.sin(0.05 * np.arange(count)))[None]
                samples = av.AudioFrame.from_ndarray(wave, "s16", layout="mono")
                samples.sample_rate, samples.time_base = SAMPLES, Fraction(1, SAMPLES)
                samples.pts = number * count
                file.mux(tone.encode(samples))
        for stream in (pictures, *([] if tone is None else [tone])):
            file.mux(stream.encode(None))


def read_clip(path, format="rgb24", codec=None):
    """Returns the frames of a video as arrays of a format, and their times in seconds."""
    import av

    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        decoder = stream.codec_context if codec is None else av.CodecContext.create(codec, "r")
        decoded = [
            frame
            for packet in file.demux(stream)
            for frame in (packet.decode() if codec is None else decoder.decode(packet))
        ]
        times = [float(frame.pts * stream.time_base) for frame in decoded]
        return np.stack([frame.to_ndarray(format=format) for frame in decoded]), times


def sound_of(path):
    """Returns the name of the codec of a video's sound, and its packets; None if it is silent."""
    import av

    with av.open(str(path)) as file:
        if not file.streams.audio:
            return None
        (stream,) = file.streams.audio
        packets = [packet for packet in file.demux(stream) if packet.dts is not None]
        return stream.codec_context.name, [bytes(packet) for packet in packets]
