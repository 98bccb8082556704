import json
import os
import time

import pytest

from glnet_infer.errors import CheckpointError, InputError
from glnet_infer.files import read_file, read_json


def refused(path, *words, largest=100):
    with pytest.raises(InputError) as caught:
        read_file(path, InputError, what="It was not read.", fix="try again", largest=largest)
    assert all(word in str(caught.value) for word in ("It was not read.", "try again", *words)), caught.value


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    refused(tmp_path / "pipe", "not a regular file")
    refused("/dev/zero", "not a regular file")
    refused(tmp_path, "directory")
    assert time.monotonic() - started < 5  # seconds; a pipe without a writer is waited for without end


def test_paths_that_cannot_be_asked_about(tmp_path):
    refused(tmp_path / "none", "No such file")
    refused(tmp_path / ("x" * 5000), "too long")
    refused("a\0b", "null byte")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "symbolic links")


def test_large_files_are_refused_before_they_are_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # no disk holds it; nothing of it is stored
    refused(tmp_path / "large", str(1 << 40), "at most 100 are read")
    (tmp_path / "just").write_bytes(b"x" * 100)
    assert read_file(tmp_path / "just", InputError, what="", fix="", largest=100) == b"x" * 100


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "{", "", "\udcff", "9" * 5000])
def test_json_that_cannot_be_read(tmp_path, text):
    (tmp_path / "file.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"file\.json was not read"):
        read_json(tmp_path / "file.json", CheckpointError, fix="write it again")


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "file.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"name": "ä"}, ensure_ascii=False).encode())
    assert read_json(tmp_path / "file.json", InputError, fix="") == {"name": "ä"}
