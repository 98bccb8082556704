"""Files that are often taken for a checkpoint, by what they begin with."""

from __future__ import annotations

_WEB_PAGE = ("it is a web page, such as a login or a warning", "download the file itself, in a browser if need be")

_KINDS = (
    (b"version https://git-lfs", "it is a Git LFS pointer: the file itself was not downloaded", "run git lfs pull"),
    (b"/annex/objects/", "it is a git-annex pointer: the file itself was not downloaded", "run git annex get"),
    (b"outs:", "it is a DVC pointer: the file itself was not downloaded", "run dvc pull"),
    *((start, *_WEB_PAGE) for start in (b"<!doctype html", b"<html", b"<head", b"<!--", b"<meta", b"<script")),
    (b"<?xml", "it is an XML document, such as a server's message", "download the file itself again"),
    (b"\x1f\x8b", "it is compressed by gzip", "unpack it with gunzip or tar xzf, and give the file in it"),
    (b"\xfd7zXZ", "it is compressed by xz", "unpack it with unxz or tar xJf, and give the file in it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd", "unpack it with unzstd, and give the file in it"),
    (b"BZh", "it is compressed by bzip2", "unpack it with bunzip2 or tar xjf, and give the file in it"),
    (b"7z\xbc\xaf", "it is a 7-Zip archive", "unpack it, and give the file in it"),
    (b"Rar!", "it is a RAR archive", "unpack it, and give the file in it"),
    (b"\x89hdf", "it is an HDF5 file, as Keras writes them", "give weights that PyTorch saved"),
    (b"\x93numpy", "it is a single array of NumPy", "give a file that torch.save wrote"),
    (b"ptrt", "it is a TensorRT engine", "give the checkpoint that it was built from"),
    (b"ftrt", "it is a TensorRT engine", "give the checkpoint that it was built from"),
    (b"gguf", "it is a GGUF file", "give weights that PyTorch saved"),
    (b"\x08", "it is a graph such as ONNX, not weights", "give the checkpoint that it was exported from"),
)


def name_of(head: bytes, size: int) -> tuple[str, str] | None:
    """What a file is that is no checkpoint, and what to do; None where its beginning says nothing.

    Args:
        head: First bytes of the file.
        size: Bytes of the file.
    """
    if size == 0:
        return "it is empty", "copy or download it again"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, as Windows saves pages
        head = head.replace(b"\0", b"")[2:]
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b'"weight_map"' in head:
        return "it is the list of a checkpoint in several parts", "join the parts into one file with safetensors"
    for start, why, fix in _KINDS:
        if text.startswith(start.lower()):
            return why, fix
    if head[257:262] == b"ustar":
        return "it is a tar archive", "unpack it, and give the file in it; PyTorch 0.1's own tar files are not read"
    if text[:1] in (b"{", b"[") and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "it is a text, such as JSON", "a network's configuration goes to --config; give the weights here"
    return None
