"""A dataset: annotated persons, of which each can be loaded as a crop with labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_train.data.annotation import Annotation, LabelMask
from glnet_train.data.samples import Sample, load_sample


class AnnotatedImages(Sequence[Annotation]):
    """Persons of one dataset under one label mask.

    All annotations are held in memory, about 2 kB each with every label. Images are read when a person is loaded.

    Args:
        name: Name of the dataset, for messages and logs.
        annotations: Persons of the dataset.
        mask: Labels that are used; by default all.
        spec: Size and padding of crops.
        left_out: How many persons of the files are left out, by the reason.

    Attributes:
        left_out: How many persons of the files are left out, by the reason.
    """

    def __init__(
        self,
        name: str,
        annotations: Iterable[Annotation],
        mask: LabelMask | None = None,
        spec: CropSpec | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        mask = mask or LabelMask()
        self.name = name
        self.left_out = dict(left_out or {})
        self.mask = mask
        self.spec = spec or CropSpec()
        self._annotations = [mask.apply(annotation) for annotation in annotations]
        if not self._annotations:
            raise InputError(
                f"The dataset {name} is empty.",
                why="its files hold no person with a usable box and label",
                fix="check the split, and that the annotation file belongs to the images",
            )

    def __len__(self) -> int:
        return len(self._annotations)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Annotation]: ...

    def __getitem__(self, index: int | slice) -> Annotation | list[Annotation]:
        return self._annotations[index]

    def __repr__(self) -> str:
        return f"AnnotatedImages({self.name!r}, {len(self)} persons)"

    def load(self, index: int, box: NDArray[np.float64] | None = None) -> Sample:
        """The crop of a person with its labels in the network's units.

        Args:
            index: Number of the person.
            box: x1, y1, x2, y2 in image pixels instead of the annotated box (augmentation).

        Raises:
            InputError: The image cannot be read.
        """
        return load_sample(self._annotations[index], self.spec, box)
