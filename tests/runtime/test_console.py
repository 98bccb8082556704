"""What command lines say reaches the reader as it was written, whatever the width of his terminal."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from glnet_infer import InputError, OutputError
from glnet_infer.commands import console
from glnet_infer.commands.console import errors_reported
from glnet_infer.commands.infer import app

ROOT = Path(__file__).parents[2]
LONG = "/data/a folder/[bold]photographs[/bold] of :smile:/" + "deep/" * 60 + "a.JPG"


@pytest.fixture(params=[1, 20, 80, 81, 1000])
def width(request, monkeypatch):
    """Columns that rich believes in: it asks once, when the console is made, and takes 80 where no terminal is."""
    monkeypatch.setattr(console, "talk", Console(stderr=True, highlight=False, width=request.param))


@pytest.mark.parametrize("text", [LONG, f"{LONG}: two lines,\n  the second indented", "x" * 500, "", "tab\tand    spaces"])
def test_messages_are_neither_broken_nor_read_as_markup(width, capsys, text):
    console.say(text)
    console.say(text, style="yellow")
    assert capsys.readouterr() == ("", f"{text}\n{text}\n".expandtabs(8))


def test_errors_are_not_broken(width, capsys):
    error = InputError(f"{LONG} was not read.", why=f"{LONG} is a folder", fix=f"take {LONG}")
    console.print_error(error)
    assert capsys.readouterr().err == f"error: {error}\n"


def test_paths_in_errors_of_a_command_are_not_broken(width, tmp_path, shared_bundle):
    gone = tmp_path / "photographs that are no longer where they were" / "a.JPG"
    result = CliRunner().invoke(app, [str(gone), "-b", str(shared_bundle), "-o", str(tmp_path)])
    assert str(gone) in result.stderr


def test_what_is_said_of_one_image_of_many_is_not_broken(width, tmp_path, shared_bundle):
    bad = tmp_path / "photographs that are damaged, every single one of them, by the tooth of time" / "a.JPG"
    bad.parent.mkdir()
    bad.write_text("no image")
    result = CliRunner().invoke(app, [str(bad), "-b", str(shared_bundle), "-o", str(tmp_path)])
    assert f"{bad}:\n" in result.stderr and f"error: {bad}" in result.stderr


def test_no_command_line_prints_past_it():
    """``say`` alone prints on the console, so none forgets what it takes care of."""
    files = [file for folder in ("glnet_infer", "models", "export", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    printing = [file.name for file in files if re.search(r"\btalk\.(print|out|log)\w*\(", file.read_text())]
    assert printing == ["console.py"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_cleans_up_as_ctrl_c_does(tmp_path):
    code = f"""
import os, signal, typer
from glnet_infer.commands.console import errors_reported, new_app
from glnet_infer.files import replace_file
app = new_app()

def write(file):
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGTERM)

@app.command()
def work():
    with errors_reported():
        replace_file({str(tmp_path / "result")!r}, write)

app()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 130 and done.stderr == "interrupted\n" and not list(tmp_path.iterdir())


def test_what_sigterm_did_before_it_does_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with errors_reported():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")


def run(*command, stdout=subprocess.PIPE, **options):
    """An installed command; nothing of Python's own is taken for its words."""
    return subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *map(str, command[1:])],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        **options,
    )


@FULL
@pytest.mark.parametrize(
    "code, command",
    [
        (9, ["glnet-doctor", "--help"]),
        (9, ["glnet-doctor", "--version"]),
        (9, ["glnet-doctor"]),
        (9, ["glnet-doctor", "--json"]),
        (4, ["glnet-doctor", "no-bundle", "--json"]),
        (9, ["glnet-infer", "--help"]),
        (3, ["glnet-infer", "no-photo.jpg", "-b", "no-bundle", "--json"]),
        (9, ["glnet-export", "--help"]),
        (9, ["glnet-train", "--help"]),
        (9, ["glnet-bench", "--help"]),
    ],
)
def test_a_full_disk_behind_stdout_is_an_error_in_words(code, command):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        result = run(*command, stdout=full)
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    assert "error: " in result.stderr and result.returncode == code


@pytest.mark.parametrize("options", [["--help"], ["--version"], [], ["--json"]])
def test_a_closed_stdout_is_an_error_in_words(options):
    command = " ".join([f'"{Path(sys.executable).parent / "glnet-doctor"}"', *options, ">&-"])
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=120)
    assert "Traceback" not in result.stderr
    assert result.returncode == (0 if "--help" in options else 9)  # click prints no help where nobody hears it


def test_an_error_of_the_system_elsewhere_is_not_taken_for_one_of_stdout(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fails"])
    app = typer.Typer()

    @app.command()
    def fails():
        raise PermissionError(13, "elsewhere")

    with pytest.raises(PermissionError):
        console.start(app)


class Terminal(io.StringIO):
    def __init__(self, terminal, encoding="utf-8"):
        super().__init__()
        self.terminal, self.codec = terminal, encoding

    encoding = property(lambda self: self.codec)

    def isatty(self):
        return self.terminal

    def write(self, text):
        text.encode(self.codec)
        return super().write(text)


OBEYED = "a\x1b[2Jb\x9bc\rd"


def test_a_terminal_gets_names_escaped_and_programs_get_them_as_they_are(monkeypatch):
    for terminal, expected in ((True, r"a\x1b[2Jb\x9bc\rd"), (False, OBEYED)):
        monkeypatch.setattr(sys, "stdout", Terminal(terminal))
        console.print_result(OBEYED)
        assert sys.stdout.getvalue() == f"{expected}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_names_that_are_no_text_are_printed(monkeypatch, encoding):
    monkeypatch.setattr(sys, "stdout", Terminal(False, encoding))
    console.print_result("photo-\udcff-日.npz")
    assert sys.stdout.getvalue().startswith("photo-\\udcff-")


def test_messages_hold_nothing_that_a_terminal_obeys(capsys):
    console.say(OBEYED)
    console.print_error(InputError(OBEYED))
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x9b" not in said and "\r" not in said


def test_results_for_a_closed_stdout_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="closed"):
        console.print_result("a line")
