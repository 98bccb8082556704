"""Addresses of models on servers, and how backends are found by them."""

import importlib

import pytest

from glnet_infer import BackendError
from glnet_infer.backends import backend_names, find_kind, kinds, open_backend
from glnet_infer.backends.triton.address import Address


@pytest.mark.parametrize(
    "text, parts",
    [
        ("triton://host:8001/glnet", ("triton", "host", 8001, "glnet", 10)),
        ("triton://host/glnet", ("triton", "host", 8001, "glnet", 10)),
        ("triton+http://host/glnet", ("triton+http", "host", 8000, "glnet", 10)),
        ("triton://10.0.0.7:9/a.b-c_1?timeout=0.5", ("triton", "10.0.0.7", 9, "a.b-c_1", 0.5)),
        ("triton://[::1]:9/glnet", ("triton", "::1", 9, "glnet", 10)),
    ],
)
def test_an_address_says_where_the_model_is(text, parts):
    address = Address.parse(text)
    assert (address.scheme, address.host, address.port, address.model, address.timeout) == parts
    assert Address.parse(str(address)).place == address.place


@pytest.mark.parametrize(
    "text, why",
    [
        ("triton://", "no host"),
        ("triton://host", "no model"),
        ("triton://host/", "no model"),
        ("triton:///glnet", "no host"),
        ("triton://host/a/b", "'a/b'"),
        ("triton://host/a b", "'a b'"),
        ("triton://user@host/glnet", "no host"),
        ("triton://host:port/glnet", "port"),
        ("triton://host:70000/glnet", "65535"),
        ("triton://host/glnet#1", "#"),
        ("triton://host/glnet?timeout=0", "'0'"),
        ("triton://host/glnet?timeout=nan", "'nan'"),
        ("triton://host/glnet?timeout=inf", "'inf'"),
        ("triton://host/glnet?timeout=", "''"),
        ("triton://host/glnet?timeout=1&timeout=2", "twice"),
        ("triton://host/glnet?retries=2", "'retries'"),
        ("triton://[::1/glnet", "IPv6"),
        ("triton+https://host/glnet", "triton+https"),
    ],
)
def test_what_is_no_address_is_refused_with_the_form(text, why):
    with pytest.raises(BackendError, match="not the address") as error:
        Address.parse(text)
    assert why in error.value.why and "triton://HOST:8001/MODEL" in error.value.fix


def test_the_table_shows_the_form_and_finds_addresses(shared_bundle):
    assert {"triton://HOST:8001/MODEL", "triton+http://HOST:8000/MODEL"} <= set(backend_names())
    assert find_kind("triton://host/glnet").name == "triton" and find_kind("triton+http://host/glnet").name == "triton+http"
    for name in ("triton", "triton+http"):
        with pytest.raises(BackendError, match="none is named") as error:
            open_backend(name, shared_bundle)
        assert kinds()[name].address in error.value.fix
    for name in ("tritons://host/glnet", "onnxruntime-cpu://host", "http://host/glnet"):
        with pytest.raises(BackendError, match="There is no backend"):
            find_kind(name)


def test_the_doctor_says_how_to_install_the_client(monkeypatch):
    pytest.importorskip("tritonclient")
    assert all("takes the address" in kinds()[name].state() for name in ("triton", "triton+http"))

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    for name in ("triton", "triton+http"):
        assert "[triton]" in kinds()[name].state()
