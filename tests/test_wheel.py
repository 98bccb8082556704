"""What ``pip install glnet-infer`` gives: the wheel's content, and its commands where there is no checkout."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

from glnet_infer import Meshes, MeshRecoverer

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "glnet_infer": ROOT / "glnet_infer",
    "glnet": ROOT / "models" / "glnet",
    "glnet_render": ROOT / "models" / "glnet_render",
    "glnet_train": ROOT / "models" / "glnet_train",
    "glnet_export": ROOT / "export" / "glnet_export",
    "glnet_bench": ROOT / "benchmarks" / "glnet_bench",
}
COMMANDS = ("glnet-infer", "glnet-doctor", "glnet-export", "glnet-train", "glnet-bench")
DEMO = {f"glnet/demo/{name}" for name in ("LICENSE", "MODEL_CARD.md", "README.md", "body.npz", "checkpoint.pth")}
DETECTOR = {f"glnet_infer/detection/nanodet-g.{suffix}" for suffix in ("onnx", "LICENSE")}
VIEWER = {
    f"glnet_infer/viewer/{name}" for name in ("page.html", "player.js", "three.LICENSE", "three.entry.js", "three.min.js")
}
CONSTRAINTS = {"glnet_infer/constraints.txt"}
LICENSES = {
    "LICENSE",
    "NOTICE",
    "models/demo/LICENSE",
    "glnet_infer/detection/nanodet-g.LICENSE",
    "glnet_infer/viewer/three.LICENSE",
}
SAME = (
    1e-5  # m, in 10 m: 10 units of float32's last place, where one backend may split its sums by other numbers of threads
)


@pytest.fixture(scope="session")
def wheel(made_once) -> Path:
    """The wheel, built from the source distribution as ``python -m build`` does."""
    pytest.importorskip("hatchling", reason="install the extra dev")
    return next(made_once("wheel", build).glob("*.whl"))


def build(folder: Path) -> None:
    hatch = (sys.executable, "-m", "hatchling", "build")
    run([*hatch, "-t", "sdist", "-d", folder], cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder)
    run([*hatch, "-t", "wheel", "-d", folder], cwd=folder / archive.name.removesuffix(".tar.gz"))


def run(command, **options) -> str:
    """What it prints; on failure, what it said is the test's error."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("GLNET_")}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=300, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_it_holds_the_packages_the_demo_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    assert len(files) == len(set(files))
    expected = DEMO | CONSTRAINTS
    for name, folder in PACKAGES.items():
        sources = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        expected |= {f"{name}/{file}" for file in sources if "__pycache__" not in file}
        assert f"{name}/py.typed" in files
    (metadata,) = {file.split("/")[0] for file in files if file.split("/")[0].endswith(".dist-info")}
    expected |= {f"{metadata}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    expected |= {f"{metadata}/licenses/{name}" for name in LICENSES}
    assert set(files) == expected
    # Modules and markers, but for these: a package that begins to ship data says so above.
    code = {file for file in expected - DEMO - DETECTOR - VIEWER - CONSTRAINTS if not file.startswith(metadata)}
    assert {Path(file).suffix for file in code} == {".py", ".typed"}
    assert sizes["glnet/demo/checkpoint.pth"] == (ROOT / "models" / "demo" / "checkpoint.pth").stat().st_size


def test_its_metadata_name_the_terms_and_the_commands(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head = Parser().parsestr(archive.read(metadata).decode())
        commands = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert head["Name"] == "glnet-infer" and head["License-Expression"] == "Apache-2.0 AND CC0-1.0 AND MIT"
    assert set(head.get_all("License-File")) == LICENSES
    assert all(f"\n{name} = " in commands for name in COMMANDS)
    runtime = [line for line in head.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(runtime) == 5 and not any("torch" in line for line in runtime)


def test_a_person_is_recovered_without_a_checkout(wheel, tmp_path, photograph, person_boxes):
    """``pip install`` into a new environment, then the three commands of a first day, away from the checkout."""
    environment, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    python = install(wheel, environment)

    def command(name: str, *arguments) -> list[str]:
        return run([python.with_name(name), *arguments], cwd=work).splitlines()

    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"
    places = run([python, "-c", code, *PACKAGES], cwd=work).splitlines()
    assert len(places) == len(PACKAGES) and all(environment in Path(place).parents for place in places)
    code = "from glnet_infer.errors import install_hint; print(install_hint('gpu'))"
    assert run([python, "-c", code], cwd=work).strip() == 'pip install "glnet-infer[gpu]"'

    code = "from glnet_infer.errors import tested_versions; print(tested_versions('export'))"
    hint = run([python, "-c", code], cwd=work).strip()
    (constraints,) = re.findall(r'pip install -c "(.+)" "glnet-infer\[export\]"$', hint)
    assert Path(constraints).read_bytes() == (ROOT / "constraints.txt").read_bytes()

    command("glnet-export", "demo", "-o", "bundle", "--no-mixed")  # the graphs of engines take a minute more
    assert "all as the manifest records them" in "\n".join(command("glnet-doctor", "bundle"))
    boxes = [argument for box in person_boxes for argument in ("--boxes", ",".join(map(str, box)))]
    written = command(
        "glnet-infer", ROOT / "examples" / "person.jpg", *boxes, "-b", "bundle", "--backend", "onnxruntime-cpu"
    )
    meshes = Meshes.load(next(work / line for line in written if line.endswith(".npz")))

    assert len(meshes) == len(person_boxes)
    for box, keypoints in zip(np.asarray(person_boxes, float), meshes.keypoints_2d, strict=True):
        size = box[2:] - box[:2]
        # A network that has seen no photograph is wrong by some pixels; one that fails puts a person elsewhere.
        assert (keypoints > box[:2] - 0.05 * size).all() and (keypoints < box[2:] + 0.05 * size).all()
        assert (np.ptp(keypoints, axis=0) > 0.6 * size).all()
    with MeshRecoverer(work / "bundle", "onnxruntime-cpu") as recoverer:
        here = recoverer(photograph, person_boxes)
    np.testing.assert_allclose(meshes.vertices, here.vertices, atol=SAME, rtol=0)
    np.testing.assert_array_equal(meshes.faces, here.faces)


def install(wheel: Path, environment: Path) -> Path:
    """A new environment with the wheel and this one's other packages; its interpreter.

    Of this one's folders of packages only their own content is seen: an editable installation, which is a ``.pth`` file in
    one of them, is not.
    """
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(pip, cwd=environment)
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own,) = {path.resolve() for path in environment.glob("[Ll]ib*/**/site-packages")}  # lib64 may be a link to lib
    (own / "dependencies.pth").write_text("\n".join(folders), encoding="utf-8")
    return python
