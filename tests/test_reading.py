import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from jax_stn_icnn.photos import reading
from jax_stn_icnn.photos.reading import PhotoError, count_frames, to_rgb

HEIGHT, WIDTH = 24, 36
ORIENTATION = 0x0112
XMP_ROTATION = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def gradient():
    """An image that is neither symmetric nor gray, smooth enough for JPEG."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([5 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8)


def gray16():
    return (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 70).astype(np.uint16)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def profile(name):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name))


def permuted_profile():
    """The profile of sRGB with its primary colours permuted."""
    data = profile("sRGB").tobytes()
    for name, other in ((b"rXYZ", b"1XYZ"), (b"gXYZ", b"2XYZ"), (b"bXYZ", b"3XYZ")):
        assert data.count(name) == 1
        data = data.replace(name, other)
    for name, other in ((b"1XYZ", b"gXYZ"), (b"2XYZ", b"bXYZ"), (b"3XYZ", b"rXYZ")):
        data = data.replace(name, other)
    return data


@pytest.mark.parametrize("is_silent", [True, False])
def test_decoders_print_nothing_about_damaged_files(is_silent, tmp_path):
    """In a process of its own, since silence cannot be ended."""
    data = bytearray(encoded(Image.fromarray(gradient()), "TIFF", compression="tiff_lzw"))
    data[10:30] = bytes(20)  # of the pixels
    path = tmp_path / "damaged.tif"
    path.write_bytes(data)
    lines = ["import sys", "from PIL import Image", "from jax_stn_icnn.photos import reading"]
    lines += ["reading.silence_decoders()"] * is_silent
    lines += ["try:", "    Image.open(sys.argv[1]).load()"]
    lines += ["except OSError as error:", "    print(error)"]
    command = [sys.executable, "-c", "\n".join(lines), str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "decoder error" in ended.stdout
    assert (ended.stderr == "") == is_silent


def png(width, height, body=b""):
    """An 8 bit RGB PNG whose header has a given size."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class TestModes:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "YCbCr", "HSV", "CMYK"])
    def test_colour_modes_are_converted(self, mode):
        image = Image.fromarray(gradient()).convert(mode)
        found = to_rgb(image)
        assert found.dtype == np.uint8 and found.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(found.astype(int) - gradient()).max() <= 12

    @pytest.mark.parametrize("mode", ["L", "1", "P"])
    def test_other_modes_are_converted_by_pillow(self, mode):
        image = Image.fromarray(gradient()).convert(mode)
        np.testing.assert_array_equal(to_rgb(image), np.asarray(image.convert("RGB")))

    def test_16_bits(self, tmp_path):
        expected = np.repeat(np.round(gray16() / 257)[..., None], 3, axis=2)
        deep = Image.fromarray(gray16())
        for kind in ("PNG", "TIFF"):
            path = write(tmp_path / "deep", encoded(deep, kind))
            np.testing.assert_array_equal(to_rgb(path), expected)
        np.testing.assert_array_equal(to_rgb(Image.fromarray(gray16().astype(np.int32))), expected)
        with pytest.raises(PhotoError, match="more than 16 bits of grayscale"):
            to_rgb(Image.fromarray(np.full((4, 4), 70_000, np.int32)))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_pixels_are_white(self, mode):
        opacity = np.full((HEIGHT, WIDTH), 255, np.uint8)
        opacity[:, : WIDTH // 2] = 0
        gray = gradient()[..., 0]
        image = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(opacity)])
        found = to_rgb(image.convert(mode))
        assert np.all(found[:, : WIDTH // 2] == 255)
        right = np.repeat(gray[..., None], 3, axis=2)[:, WIDTH // 2 :]
        assert np.abs(found[:, WIDTH // 2 :].astype(int) - right).max() <= 12

    def test_16_bits_with_a_transparent_level(self, tmp_path):
        data = encoded(Image.fromarray(gray16()), "PNG", transparency=int(gray16()[5, 5]))
        expected = np.repeat(np.round(gray16() / 257)[..., None], 3, axis=2)
        expected[5, 5] = 255
        np.testing.assert_array_equal(to_rgb(write(tmp_path / "deep.png", data)), expected)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_16_bits_of_colour_and_opacity(self, tmp_path, channels):
        deep = np.dstack([gray16(), gray16() // 2, gray16() // 3, np.full_like(gray16(), 65_535)])
        stored = deep[..., [2, 1, 0, 3][:channels]]  # OpenCV's order
        data = cv2.imencode(".png", stored)[1].tobytes()
        found = to_rgb(write(tmp_path / "deep.png", data))
        assert np.abs(found - deep[..., :3] / 257).max() < 1

    def test_a_transparent_colour_of_a_palette(self, tmp_path):
        stripes = np.tile(np.array([0, 1], np.uint8), (HEIGHT, WIDTH // 2))
        image = Image.fromarray(stripes)
        image.putpalette([10, 20, 30, 200, 100, 50])
        path = write(tmp_path / "two.gif", encoded(image, "GIF", transparency=1))
        found = to_rgb(path)
        assert {tuple(colour) for colour in found.reshape(-1, 3)} == {
            (10, 20, 30),
            (255, 255, 255),
        }

    def test_half_transparent_array(self):
        array = np.dstack([gradient(), np.full((HEIGHT, WIDTH), 128, np.uint8)])
        expected = (gradient() * 128.0 + 255 * 127) / 255
        assert np.abs(to_rgb(array) - expected).max() <= 1


class TestFiles:
    @pytest.mark.parametrize(
        "kind", ["AVIF", "BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
    )
    def test_formats_are_recognized_by_content(self, tmp_path, kind):
        path = write(tmp_path / "face.txt", encoded(Image.fromarray(gradient()), kind))
        assert np.abs(to_rgb(path).astype(int) - gradient()).max() <= 16
        np.testing.assert_array_equal(to_rgb(str(path)), to_rgb(Image.open(path)))

    def test_heic_is_read_by_an_extra(self, tmp_path, monkeypatch):
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
        data = encoded(Image.fromarray(gradient()), "HEIF", quality=100)
        path = write(tmp_path / "photo.heic", data)
        assert np.abs(to_rgb(path).astype(int) - gradient()).mean() <= 4
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(PhotoError, match=r"photo.heic .* pip install 'jax-stn-icnn\[heic\]'"):
            to_rgb(path)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_the_exif_orientation_is_applied(self, tmp_path, orientation, kind):
        # The stored image to which the tag's operation gives the upright image.
        stored = {
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, 1),
            7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
            8: lambda a: np.rot90(a, -1),
        }[orientation](gradient())
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored))
        path = write(tmp_path / "rotated", encoded(image, kind, exif=exif, lossless=True))
        np.testing.assert_array_equal(to_rgb(path), gradient())

    @pytest.mark.parametrize(("orientation", "xmp"), [(0, b""), (9, b""), (None, XMP_ROTATION)])
    def test_without_a_valid_exif_orientation_a_photo_is_upright(self, tmp_path, orientation, xmp):
        exif = Image.Exif()
        if orientation is not None:
            exif[ORIENTATION] = orientation
        data = encoded(Image.fromarray(gradient()), "WEBP", lossless=True, exif=exif, xmp=xmp)
        np.testing.assert_array_equal(to_rgb(write(tmp_path / "photo", data)), gradient())

    def test_a_malformed_exif_tag_is_ignored(self, tmp_path):
        """A number stored as text, with which Pillow's own transposition fails."""
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        exif[ExifTags.Base.XResolution] = 72.0
        tag, fraction, text = (struct.pack(">H", n) for n in (ExifTags.Base.XResolution, 5, 2))
        assert exif.tobytes().count(tag + fraction) == 1
        odd = exif.tobytes().replace(tag + fraction, tag + text)
        image = Image.fromarray(np.ascontiguousarray(np.rot90(gradient())))
        path = write(tmp_path / "odd.png", encoded(image, "PNG", exif=odd))
        with pytest.raises(TypeError):
            ImageOps.exif_transpose(Image.open(path))
        np.testing.assert_array_equal(to_rgb(path), gradient())

    @pytest.mark.parametrize("kind", ["GIF", "MPO", "PNG", "TIFF", "WEBP"])
    def test_the_first_of_several_frames_is_read(self, tmp_path, kind):
        first, second = Image.fromarray(gradient()), Image.fromarray(255 - gradient())
        data = encoded(first, kind, save_all=True, append_images=[second])
        path = write(tmp_path / "two", data)
        assert np.abs(to_rgb(path).astype(int) - gradient()).mean() < 8
        assert count_frames(path) == 2
        assert count_frames(write(tmp_path / "one", encoded(first, "PNG"))) == 1

    @pytest.mark.parametrize("opaque", [True, False])
    def test_colours_are_converted_to_srgb(self, tmp_path, opaque):
        """A profile with the red of sRGB as its green, and so on: the channels are permuted."""
        image = Image.fromarray(gradient())
        if not opaque:
            image.putalpha(Image.new("L", image.size, 255))
        path = write(tmp_path / "other.png", encoded(image, "PNG", icc_profile=permuted_profile()))
        found = to_rgb(path).astype(int)
        assert np.abs(found - gradient()[..., [1, 2, 0]]).max() <= 2
        equal = encoded(image, "PNG", icc_profile=profile("sRGB").tobytes())
        np.testing.assert_array_equal(to_rgb(write(path, equal)), gradient())
        damaged = encoded(image, "PNG", icc_profile=permuted_profile()[:300])
        np.testing.assert_array_equal(to_rgb(write(path, damaged)), gradient())
        other = encoded(image, "PNG", icc_profile=profile("LAB").tobytes())
        np.testing.assert_array_equal(to_rgb(write(path, other)), gradient())

    @pytest.mark.parametrize("name", ["nothing.png", "."])
    def test_a_file_that_cannot_be_opened_is_an_os_error(self, tmp_path, name):
        with pytest.raises(OSError, match=str(tmp_path)):
            to_rgb(tmp_path / name)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"hello",
            b"\xff\xd8\xff",
            b"GIF89a",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # would start Ghostscript
            png(4, 4, b"not zlib"),
            encoded(Image.fromarray(gradient()), "JPEG")[:-200],
            encoded(Image.fromarray(gradient()), "PNG")[:-30],
            png(0, 9),
        ],
        ids="empty text jpeg-head gif-head eps png-body jpeg-cut png-cut no-width".split(),
    )
    def test_a_damaged_file_is_named(self, tmp_path, data):
        path = write(tmp_path / "bad.jpg", data)
        with pytest.raises(PhotoError, match="bad.jpg"):
            to_rgb(path)

    def test_a_decompression_bomb_is_rejected_before_decoding(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
        bomb = write(tmp_path / "bomb.png", png(20_000, 20_000))
        with pytest.raises(PhotoError, match=r"bomb.png is too large.* limit of \d+"):
            to_rgb(bomb)
        # Between its limit and twice the limit Pillow only warns.
        less = write(tmp_path / "less.png", png(10_000, 10_000))
        with (
            pytest.warns(Image.DecompressionBombWarning),
            pytest.raises(PhotoError, match="10000 x 10000 .*MAX_IMAGE_PIXELS = 89478485"),
        ):
            to_rgb(less)
        with pytest.raises(PhotoError, match="32766 a side"):
            to_rgb(write(tmp_path / "long.png", png(40_000, 10)))


class TestArrays:
    def test_grayscale_and_floats(self):
        np.testing.assert_array_equal(to_rgb(gradient()), gradient())
        gray = gradient()[..., 0]
        np.testing.assert_array_equal(to_rgb(gray), np.dstack([gray] * 3))
        for dtype in (np.float16, np.float32, np.float64):
            np.testing.assert_array_equal(to_rgb((gradient() / 255).astype(dtype)), gradient())

    @pytest.mark.parametrize(
        ("photo", "message"),
        [
            (np.zeros((4, 4, 3), np.int64), "dtype int64, but must be uint8"),
            (np.zeros((4, 4), bool), "dtype bool"),
            (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
            (np.zeros(4, np.uint8), r"shape \(4,\)"),
            (np.zeros((0, 4, 3), np.uint8), "empty: 4 x 0"),
            (np.zeros((2, 40_000), np.uint8), "too large: 40000 x 2"),
            (np.full((4, 4), 200.0), r"floats 200.0..200.0, but must contain floats in 0..1"),
            (np.full((4, 4), np.nan), "nan"),
            (Image.fromarray(np.full((4, 4), 7, np.float32)), "0..1"),
            (7, "is of type int, but must be a path"),
            (None, "NoneType"),
        ],
    )
    def test_other_types_shapes_and_values_are_rejected(self, photo, message):
        with pytest.raises(PhotoError, match=message):
            to_rgb(photo)


KINDS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def mutations(kind, count=100):
    """Yields files with bytes changed, removed, doubled or truncated, more often in the header."""
    rng = np.random.default_rng(KINDS.index(kind))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    original = encoded(Image.fromarray(gradient()), kind, **options)
    for _ in range(count):
        data = bytearray(original)
        for _ in range(rng.integers(1, 5)):
            reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
            first, last = sorted(rng.integers(0, reach, 2))
            last = min(last, first + 8)
            how = rng.integers(4)
            if how == 0:
                data[first:last] = rng.bytes(last - first)
            elif how == 1:
                del data[first:last]
            elif how == 2:
                data[first:first] = data[first:last]
            else:
                data[first] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        yield bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about malformed files
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_an_image_or_a_photo_error(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    outcomes = set()
    for data in mutations(kind):
        path = write(tmp_path / "damaged", data)
        try:
            found = to_rgb(path)
        except PhotoError as error:
            assert "damaged" in str(error)
            outcomes.add("error")
        else:
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
            outcomes.add("image")
    assert outcomes == {"error", "image"}


def test_suffixes_are_those_of_the_formats():
    Image.init()
    known = Image.registered_extensions() | {".heic": reading.HEIF, ".heif": reading.HEIF}
    formats = {known[suffix] for suffix in reading.SUFFIXES}
    assert formats == {*reading.FORMATS, "MPO", reading.HEIF}
