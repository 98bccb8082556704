"""The field's datasets as one kind of record, and their mixture.

Nothing is downloaded and nothing is shipped: each set has its own licence, and users point the readers at their copies.
"""

from glnet.training.datasets.annotation import LABEL_MASKS, Annotation, LabelMask
from glnet.training.datasets.coco import read_coco
from glnet.training.datasets.hybrik import read_3dpw_json, read_h36m, read_mpi_inf_3dhp
from glnet.training.datasets.images import AnnotatedImages
from glnet.training.datasets.listing import load_datasets, load_mixture
from glnet.training.datasets.mixture import HYBRIK_RATIOS, Mixture
from glnet.training.datasets.samples import Sample, collate
from glnet.training.datasets.three_dpw import read_3dpw

__all__ = [
    "HYBRIK_RATIOS",
    "LABEL_MASKS",
    "AnnotatedImages",
    "Annotation",
    "LabelMask",
    "Mixture",
    "Sample",
    "collate",
    "load_datasets",
    "load_mixture",
    "read_3dpw",
    "read_3dpw_json",
    "read_coco",
    "read_h36m",
    "read_mpi_inf_3dhp",
]
