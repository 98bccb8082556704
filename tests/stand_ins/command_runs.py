"""What tests ask of a run of a command: what it listed, what it wrote, how it failed."""

from pathlib import Path

from glnet_infer import GlnetError


def written(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def names(result):
    return [Path(line).name for line in result.stdout.splitlines()]


def failed(result, error: type[GlnetError], *words):
    assert result.exit_code == error.exit_code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "error:" in result.stderr and "Traceback" not in result.output
    for word in words:
        assert word in result.stderr, result.stderr
