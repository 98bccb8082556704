"""The bundle: what ``glnet-export`` writes and the runtime opens."""

from glnet_infer.bundle.checked_file import CheckedFile, check_file, record_file
from glnet_infer.bundle.opening import Bundle, check_all_files, unknown_entries

__all__ = ["Bundle", "CheckedFile", "check_all_files", "check_file", "record_file", "unknown_entries"]
