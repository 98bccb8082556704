"""Which code measured, against git itself."""

import subprocess
import sys

import pytest

from glnet_bench.machine import provenance


@pytest.fixture
def checkout(tmp_path):
    """A repository with one package, and one that it ignores."""
    for name in ("package", "ignored"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored\n*.json\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "first")
    return tmp_path


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_has_its_commit(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance.commit([checkout / "package"]) == (head, False)
    (checkout / "run.json").write_text("what a run itself writes beside its packages")
    (checkout / "notes.md").write_text("")
    assert not provenance.commit([checkout / "package"])[1]
    (checkout / "package" / "new.py").write_text("")
    assert provenance.commit([checkout / "package"]) == (head, True)


def test_what_lies_in_a_repository_without_being_its_own_has_no_commit(checkout, tmp_path_factory):
    """A virtual environment in somebody's project."""
    unknown = (None, None)
    assert provenance.commit([checkout / "ignored"]) == unknown
    assert provenance.commit([checkout / "package", checkout / "ignored"]) == unknown
    assert provenance.commit([tmp_path_factory.mktemp("elsewhere")]) == unknown


def test_a_machine_without_git_is_no_error(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit([checkout / "package"]) == (None, None)


def test_sources_have_a_hash_of_their_own(checkout):
    folder = checkout / "package"
    before = provenance.hash_of([folder])
    (folder / "notes.txt").write_text("no source")
    assert provenance.hash_of([folder]) == before
    (folder / "__init__.py").write_text("x = 2\n")
    changed = provenance.hash_of([folder])
    (folder / "__init__.py").rename(folder / "other.py")
    assert len({before, changed, provenance.hash_of([folder])}) == 3


def test_the_packages_are_found_without_importing_them():
    code = "from glnet_bench.machine import provenance; import sys; found = provenance.describe()"
    code += "; print(len(provenance.package_folders()), len(found.sources_sha256), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["5", "64", "False"], result.stderr
