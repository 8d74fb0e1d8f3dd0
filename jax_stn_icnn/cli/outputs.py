"""The output files of the command: their names, and whether those of an input are complete.

photo.jpg.labels.png         the labels, with a palette
photo.jpg.overlay.jpg        the overlay with a legend
photo.jpg.hair.png           the mask of a class or group, for each of --masks
photo.jpg.hair.soft.png      the soft mask, with --soft
photo.jpg.cutout.png         the person without the background, with --cutout
photo.jpg.face0.labels.png   the labels and masks of one face, with --per-face
photo.jpg.json               faces and classes; written last

clip.mp4.overlay.mp4         the overlays as a video that browsers play, with the sound
clip.mp4.labels.mkv          the labels as a lossless video of gray frames
clip.mp4.hair.mkv            masks, likewise; also clip.mp4.hair.soft.mkv
clip.mp4.cutout.webm         the persons without the background, a video with transparency
clip.mp4.json                faces of each frame; written last
"""

import argparse
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.cli import settings
from jax_stn_icnn.inference.coco import import_masks
from jax_stn_icnn.label_sets import ids_in_data_set
from jax_stn_icnn.photos.files import is_video

LABELS, OVERLAY, CUTOUT, JSON = ".labels.png", ".overlay.jpg", ".cutout.png", ".json"
VIDEO_OVERLAY, VIDEO_LABELS, VIDEO_CUTOUT = ".overlay.mp4", ".labels.mkv", ".cutout.webm"
_FIXED = (LABELS, OVERLAY, CUTOUT, VIDEO_OVERLAY, VIDEO_LABELS, VIDEO_CUTOUT)


class Outputs(NamedTuple):
    """Which files the command writes for a photo or video.

    Attributes:
        masks: classes and groups of classes that get a mask.
        soft: whether these also get a soft mask.
        cutout: whether to write the cut-out.
        per_face: whether to write labels and masks of each face.
        coco: whether the JSON contains annotations in the format of COCO.
        ids: the data set whose ids the labels have; None for those of the classes.
    """

    masks: tuple[str, ...] = ()
    soft: bool = False
    cutout: bool = False
    per_face: bool = False
    coco: bool = False
    ids: str | None = None

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> "Outputs":
        """Returns the outputs that the command's arguments select."""
        coco = args.format == "coco"
        return cls(tuple(args.masks), args.soft, args.cutout, args.per_face, coco, args.ids)

    def check(self, anatomy: Anatomy) -> None:
        """Checks the options.

        Raises:
            ValueError: A name is unknown to the anatomy.
            ImportError: pycocotools is not installed, and annotations are written.
        """
        if self.coco:
            import_masks()
        if self.masks:
            anatomy.mask_ids(self.masks)
        if self.ids is not None:
            ids_in_data_set(anatomy, self.ids)

    def file_names(self, base: str, num_faces: int) -> list[str]:
        """Returns the names of the files, the JSON last.

        Args:
            base: their name without suffixes: that of the input.
            num_faces: number of faces in a photo; a video has no files of single faces.
        """
        if is_video(base):
            return [base + suffix for suffix in self.video_suffixes()] + [f"{base}{JSON}"]
        faces = [f"{base}.face{i}" for i in range(num_faces if self.per_face else 0)]
        names = [f"{base}{OVERLAY}"] + ([f"{base}{CUTOUT}"] if self.cutout else [])
        for place in (base, *faces):
            names.append(f"{place}{LABELS}")
            names += [f"{place}{mask_suffix(name)}" for name in self.masks]
            names += [f"{place}{mask_suffix(name, soft=True)}" for name in self.masks if self.soft]
        return [*names, f"{base}{JSON}"]

    def video_suffixes(self) -> list[str]:
        """Returns the suffixes of the videos that are written for a video."""
        suffixes = [VIDEO_OVERLAY, VIDEO_LABELS] + ([VIDEO_CUTOUT] if self.cutout else [])
        for name in self.masks:
            suffixes.append(mask_suffix(name, extension="mkv"))
            suffixes += [mask_suffix(name, soft=True, extension="mkv")] if self.soft else []
        return suffixes

    def are_complete(
        self, base: str, fingerprint: str, metadata: bytes | None, exists: Callable[[str], bool]
    ) -> bool:
        """Whether the files of a photo or video exist and are those of its present content.

        Args:
            base: name of the files without suffixes.
            fingerprint: fingerprint of the input.
            metadata: content of the JSON file; None if it does not exist.
            exists: whether a file of a name exists.
        """
        try:
            stored: Any = json.loads(metadata or b"")
            is_current = stored["fingerprint"] == fingerprint
            num_faces = 0 if is_video(base) else len(stored["faces"])
        # None, or one of another program
        except (ValueError, TypeError, LookupError, RecursionError):
            return False
        lacks_annotations = self.coco and not is_video(base) and "annotations" not in stored
        if not is_current or lacks_annotations:
            return False
        return all(map(exists, self.file_names(base, num_faces)))


def mask_suffix(name: str, soft: bool = False, extension: str = "png") -> str:
    """Returns the suffix of the mask of a class or group."""
    return f".{name}.soft.{extension}" if soft else f".{name}.{extension}"


def is_result_name(name: str, exists: Callable[[str], bool]) -> bool:
    """Whether a file in a folder of results is one.

    Args:
        name: its name.
        exists: whether a file of a name exists in the same folder.
    """
    if name.endswith(_FIXED):
        return True
    # photo.jpg.hair.png, beside photo.jpg.json
    dots = [dot.start() for dot in re.finditer(r"\.", name)]
    return name.endswith((".png", ".mkv")) and any(exists(name[:dot] + JSON) for dot in dots[:-1])


def make_result_test() -> Callable[[Path], bool]:
    """Returns a function that tells whether a file was written by the command.

    Results are in folders with the file `settings.json` of the command, and folders in these.
    """

    @functools.cache
    def is_result_folder(folder: Path) -> bool:
        has_settings = settings.is_settings_file(folder / settings.NAME)
        return has_settings or (folder != folder.parent and is_result_folder(folder.parent))

    def is_result(path: Path) -> bool:
        folder = path.absolute().parent
        return is_result_name(path.name, lambda name: (folder / name).exists()) and (
            is_result_folder(folder)
        )

    return is_result
