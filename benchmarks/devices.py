"""Photos per second of streams on 1, 2 and 4 simulated devices, which share this machine's cores.

    python -m benchmarks.devices          # by turns, three rounds
    python -m benchmarks.devices 4        # once on four devices

Each device has a parser, whose stream a thread reads. Since all devices have the same cores, a
perfect result is the rate of one device; what is missing is the overhead of more devices.
"""

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax

from benchmarks import process
from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation import cache
from tfds_builders.synthetic_faces.face import draw_face

DEVICES = (1, 2, 4)
ROUNDS = 3
PHOTOS = 96  # of all devices
SIDE = 512


def photos_per_second(count: int) -> float:
    """Returns the rate on a number of simulated devices, the first only if there are more."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    cache.enable_cache(None)
    parsers = [FaceParser.load(device=device) for device in jax.devices()]
    photos = [draw_face("test", number, SIDE).image for number in range(8)] * (PHOTOS // 8)

    def parse(parser: FaceParser, share: int) -> None:
        for _ in parser.stream(photos[:share]):
            pass

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(parse, parsers, [4] * count))  # Compiles.
        start = time.perf_counter()
        list(threads.map(parse, parsers, [PHOTOS // count] * count))
    return PHOTOS / (time.perf_counter() - start)


def main() -> None:
    """Prints the medians, or reports one measurement."""
    if len(sys.argv) > 1:
        process.report(photos_per_second(int(sys.argv[1])))
        return
    rates: dict[int, list[float]] = {count: [] for count in DEVICES}
    for _ in range(ROUNDS):
        for count in DEVICES:
            rates[count].append(process.measure("-m", "benchmarks.devices", str(count)))
    one = statistics.median(rates[1])
    for count, found in rates.items():
        rate = statistics.median(found)
        print(f"{count} devices: {rate:.2f} photos per second, {rate / one:.2f} of one device")


if __name__ == "__main__":
    main()
