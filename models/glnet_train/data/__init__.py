"""The field's datasets as one kind of record, and their mixture.

Nothing is downloaded and nothing is shipped: each set has its own licence, and users point the readers at their copies.
"""

from glnet_train.data.annotation import LABEL_MASKS, Annotation, LabelMask
from glnet_train.data.coco import read_coco
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.hybrik import read_3dpw_json, read_h36m, read_mpi_inf_3dhp
from glnet_train.data.listing import load_datasets, load_mixture
from glnet_train.data.mixture import HYBRIK_RATIOS, Mixture
from glnet_train.data.samples import Sample, collate
from glnet_train.data.three_dpw import read_3dpw

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
