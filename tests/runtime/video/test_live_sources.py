"""Webcams and network streams: what is there is read, what breaks is closed well, and nothing else is contacted."""

import http.server
import socket
import threading
from fractions import Fraction

import pytest

from glnet_infer import InputError
from glnet_infer.video.sources import is_live, open_source
from glnet_infer.video.sources import pyav as pyav_module

STEADY = [Fraction(i, 25) for i in range(60)]


@pytest.fixture
def serve():
    """Serves bytes at an address of this machine: ``serve(data, then)`` calls ``then`` before it hangs up."""
    servers = []

    def start(data, then=lambda: None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(data)
                then()

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://user:secret@127.0.0.1:{server.server_port}/camera.ts?key=secret"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stream(tmp_path, clips):
    """A clip as a camera sends it."""
    return clips.write(tmp_path / "clip.ts", STEADY, base=Fraction(1, 90000), sound="aac").read_bytes()


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_network_stream_is_read(serve, stream, clips):
    pytest.importorskip("av")
    with open_source(serve(stream)) as source:
        assert source.facts.live and source.expected is None
        assert source.facts.lost == ("sound, which is kept from files only",)
        assert "secret" not in source.facts.name
        frames = [(frame.index, round(frame.time, 4), clips.number(frame.image)) for frame in source]
    assert frames == [(i, round(i / 25, 4), i) for i in range(60)]  # the first is at zero


def test_a_network_stream_is_read_by_opencv(serve, stream, clips, without_pyav):
    with open_source(serve(stream)) as source:
        assert source.facts.live
        assert [clips.number(frame.image) for frame in source] == list(range(60))


def test_a_window_of_a_network_stream(serve, stream):
    pytest.importorskip("av")
    with open_source(serve(stream), start=0.4, end=1.2, every=2) as source:
        assert [frame.index for frame in source] == list(range(10, 30, 2))


def test_a_stream_that_breaks_off_ends_and_says_so(serve, stream):
    pytest.importorskip("av")
    with open_source(serve(stream[: len(stream) // 2])) as source:
        assert 10 < len(list(source)) < 60
        assert source.ended_early.startswith("the connection ended")


def test_a_stream_that_hangs_ends_and_says_so(serve, stream, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(pyav_module, "READ_SECONDS", 1.0)
    over = threading.Event()
    try:
        with open_source(serve(stream[: len(stream) // 2], lambda: over.wait(30))) as source:
            assert 10 < len(list(source)) < 60
            assert "nothing came for 1 seconds" in source.ended_early
    finally:
        over.set()


def test_a_server_that_says_nothing(monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(pyav_module, "OPEN_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for scheme in ("http", "rtsp"):
            with pytest.raises(InputError, match=r"cannot be opened") as caught:
                open_source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/")
            assert "check the address" in caught.value.fix


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("reader", ["pyav", "opencv"])
def test_a_refused_connection(closed_port, scheme, reader, request, capfd):
    if reader == "opencv":
        request.getfixturevalue("without_pyav")
    else:
        pytest.importorskip("av")
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_source(f"{scheme}://user:secret@127.0.0.1:{closed_port}/x")
    assert "secret" not in str(caught.value) and f"127.0.0.1:{closed_port}" in caught.value.what
    assert capfd.readouterr() == ("", "")


def test_addresses_that_no_one_reads():
    with pytest.raises(InputError, match=r"ftp://server/clip.mp4 cannot be opened") as caught:
        open_source("ftp://server/clip.mp4")
    assert "rtsp" in caught.value.why


def test_no_camera(capfd):
    with pytest.raises(InputError, match="no picture from camera 63") as caught:
        open_source("63")
    assert caught.value.fix
    assert capfd.readouterr() == ("", "")


def test_a_camera(monkeypatch, clips):
    """A stand-in for a camera, since test machines have none: its frames are stamped when they come."""
    from glnet_infer.video.sources import opencv

    class Camera:
        def __init__(self, number):
            self.left = 5
            assert number == 2

        def isOpened(self):  # noqa: N802 - OpenCV's name
            return True

        def get(self, name):
            return {opencv.cv2.CAP_PROP_FPS: 0.0}.get(name, 0.0)

        def grab(self):
            self.left -= 1
            return self.left >= 0

        def retrieve(self):
            return True, clips.image(4 - self.left)

        def release(self):
            self.left = None

    monkeypatch.setattr(opencv.cv2, "VideoCapture", Camera)
    times = iter([100.0, 100.0, 100.5, 101.25, 101.25, 102.0])
    monkeypatch.setattr(opencv.time, "monotonic", lambda: next(times))
    assert is_live("2") and not is_live("2.mp4")
    with open_source("2") as source:
        frames = [(frame.index, frame.time, clips.number(frame.image)) for frame in source]
        assert source.facts.live and source.facts.rate == 30 and not source.facts.lost
        assert source.ended_early == "no more frames came"
    # Two that come at once are a millisecond apart: times grow.
    assert frames == [(0, 0.0, 0), (1, 0.5, 1), (2, 1.25, 2), (3, 1.251, 3), (4, 2.001, 4)]


@pytest.mark.parametrize("reader", ["pyav", "opencv"])
def test_a_file_leads_nowhere_else(tmp_path, reader, request, capfd):
    if reader == "opencv":
        request.getfixturevalue("without_pyav")
    else:
        pytest.importorskip("av")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(0.2)
        playlist = tmp_path / "playlist.m3u8"
        playlist.write_text(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n"
            f"http://127.0.0.1:{other.getsockname()[1]}/part.ts\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(InputError):
            open_source(playlist)
        with pytest.raises(TimeoutError):
            other.accept()
    assert capfd.readouterr() == ("", "")
