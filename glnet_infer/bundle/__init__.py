"""The bundle: what ``glnet-export`` writes and the runtime opens."""

from glnet_infer.bundle.opening import Bundle, check_file, record_file

__all__ = ["Bundle", "check_file", "record_file"]
