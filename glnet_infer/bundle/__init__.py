"""The bundle: what ``glnet-export`` writes and the runtime opens."""

from glnet_infer.bundle.checked_file import CheckedFile, check_file, record_file
from glnet_infer.bundle.opening import Bundle

__all__ = ["Bundle", "CheckedFile", "check_file", "record_file"]
