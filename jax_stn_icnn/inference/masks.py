"""Masks, polygons and label maps in other formats, of faces and of photos alike."""

from abc import ABC, abstractmethod

import numpy as np
from PIL import Image

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.inference import polygons
from jax_stn_icnn.label_sets import ids_in_data_set


class Labelled(ABC):
    """Class ids of a photo's pixels, and masks of them.

    Names of masks are class names, such as "hair", and groups of classes as far as the anatomy has
    their classes:

        lips    upper_lip, lower_lip
        mouth   lips, inner_mouth
        brows, eyes, ears   both sides
        face    skin, brows, eyes, nose, mouth, glasses
        head    face, hair, ears, hat, earring
        person  everything but background
    """

    anatomy: Anatomy

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """Class ids, uint8 (height, width) of the photo."""

    @abstractmethod
    def soft_mask(self, *names: str) -> np.ndarray:
        """Returns the scores of one or more classes."""

    def mask(self, *names: str) -> np.ndarray:
        """Returns the mask of one or more classes.

        Args:
            *names: class names or groups of classes, such as "hair", or "lips".

        Returns:
            bool (height, width), True where a pixel has one of the classes.

        Raises:
            ValueError: no name is given, or one is unknown; the message lists the names.
        """
        wanted = np.zeros(256, bool)
        wanted[list(self.anatomy.mask_ids(names))] = True
        return wanted[self.labels]

    def polygons(self, *names: str) -> list[np.ndarray]:
        """Returns polygons around the regions of one or more classes.

        A hole is a polygon of its own, with the opposite orientation: all polygons together, filled
        by the even-odd or by the nonzero rule, are the mask. Borders run between pixels, and
        integers are the centers of pixels. Formats in which pixel 0 extends from 0 to 1, such as
        SVG, need 0.5 more.

        Args:
            *names: as for `mask`.

        Returns:
            Polygons (x, y), float64 (points, 2), in pixels of the photo, each border of a region
            before those of its holes. The last point is connected to the first one.

        Raises:
            ValueError: no name is given, or one is unknown.
        """
        return polygons.trace(self.mask(*names))

    def labels_as(self, data_set: str) -> np.ndarray:
        """Returns the labels in the ids of a data set.

        Args:
            data_set: name of a registered data set, such as "celebamask_hq" or "helen". Its ids are
                the order of its classes in `anatomy.DATA_SETS`.

        Returns:
            uint8 (height, width). Classes that the data set lacks become background: in "helen"
            ears, glasses, hats, neck and clothes.

        Raises:
            ValueError: the data set is unknown, or one of its classes is not exactly one class
                here.
        """
        return ids_in_data_set(self.anatomy, data_set)[self.labels]

    def labels_image(self) -> Image.Image:
        """Returns the labels as a Pillow image of mode P, with the colours of the classes."""
        image = Image.fromarray(self.labels)
        image.putpalette(np.array(self.anatomy.colours, np.uint8).tobytes())  # sets mode "P"
        return image
