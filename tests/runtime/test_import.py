"""What importing costs, and which package may import which."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import glnet_infer

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "glnet_infer": "glnet_infer",
    "glnet": "models/glnet",
    "glnet_export": "export/glnet_export",
    "glnet_bench": "benchmarks/glnet_bench",
}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "scipy", "trimesh", "smplx", "typer", "rich")

PLAIN_DATA = {"manifest", "skeleton", "errors", "bodies"}
ONE_DEFINITION = {"crops", "camera", "images", "rasterizer"}
"""Training cuts, checks and draws as the runtime does: NumPy and OpenCV only, and written once."""

RUNTIME_FOR_EXPORT = {"bundle", "backends", "version", "console", "crops", "devices"}


def in_fresh_python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def imports(file):
    """Modules that a source file imports anywhere, and the line of each."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def sources(package):
    files = sorted((ROOT / FOLDERS[package]).rglob("*.py"))
    assert files
    return files


def offenders(package, is_wrong):
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sources(package)
        for name, line in imports(file)
        if is_wrong(name)
    ]


def package_of(name):
    return name.split(".")[0]


def test_importing_the_runtime_loads_numpy_and_opencv_only():
    loaded = in_fresh_python("import glnet_infer, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert "numpy" in loaded and "cv2" in loaded
    assert not [name for name in HEAVY if name in loaded]
    assert not [name for name in ("glnet", "glnet_export") if name in loaded]


def test_importing_the_runtime_takes_at_most_a_third_of_a_second():
    code = "import time; t = time.perf_counter(); import glnet_infer; print(time.perf_counter() - t)"
    # The best of five: other work on the machine only ever adds.
    assert min(in_fresh_python(code) for _ in range(5)) <= 0.3  # s


def test_a_recoverer_on_a_backend_of_ones_own_loads_no_onnx_runtime(shared_bundle):
    code = f"""
import json, sys
import glnet_infer
class Own:
    name = "own"
glnet_infer.MeshRecoverer({str(shared_bundle)!r}, Own())
print(json.dumps(sorted(sys.modules)))
"""
    loaded = in_fresh_python(code)
    assert not [name for name in HEAVY if name in loaded]


def test_every_public_name_exists():
    assert glnet_infer.__all__ == sorted(set(glnet_infer.__all__))
    for name in glnet_infer.__all__:
        assert getattr(glnet_infer, name) is not None
    public = {name for name, value in vars(glnet_infer).items() if isinstance(value, type) and not name.startswith("_")}
    assert public <= set(glnet_infer.__all__)


def test_the_scanner_sees_imports():
    # Otherwise the tests below could not fail.
    assert offenders("glnet_export", lambda name: name == "glnet.recovery")
    assert offenders("glnet_infer", lambda name: name == "onnxruntime")  # inside a function
    assert offenders("glnet", lambda name: name == "glnet_infer.skeleton")


def test_the_runtime_imports_neither_network_nor_export():
    forbidden = {"glnet", "glnet_export", "glnet_bench", "torch", "onnx", "onnxscript", "scipy", "smplx", "jaxtyping"}
    assert not offenders("glnet_infer", lambda name: package_of(name) in forbidden)


def test_only_command_lines_import_typer_and_rich():
    found = offenders("glnet_infer", lambda name: package_of(name) in {"typer", "rich", "click"})
    command_lines = {f"glnet_infer/{name}.py" for name in ("cli", "doctor", "console", "batch")}
    assert {line.split(":")[0] for line in found} <= command_lines


def test_the_network_imports_neither_export_nor_benchmarks():
    assert not offenders("glnet", lambda name: package_of(name) in {"glnet_export", "glnet_bench", "onnx", "onnxruntime"})


@pytest.mark.parametrize(
    "package, allowed", [("glnet", PLAIN_DATA), ("glnet_export", PLAIN_DATA | RUNTIME_FOR_EXPORT)], ids=["glnet", "export"]
)
def test_only_some_of_the_runtimes_modules_are_imported(package, allowed):
    def is_wrong(name):
        return package_of(name) == "glnet_infer" and name != "glnet_infer" and name.split(".")[1] not in allowed

    def is_excused(line):
        file, name = line.split(":")[0], line.split("glnet_infer.")[1].split(".")[0]
        in_training = file.startswith("models/glnet/training/")
        outermost = "/evaluation/" in file or file.endswith(
            ("/cli.py", "/console.py", "/eval_command.py", "/monitor.py", "/__main__.py")
        )
        runs = outermost and name in {"backends", "bundle", "console", "formats"}
        return in_training and (name in ONE_DEFINITION or runs)

    assert not [line for line in offenders(package, is_wrong) if not is_excused(line)]
    # "from glnet_infer import X" would hide the module that X comes from.
    assert not offenders(package, lambda name: name == "glnet_infer")


def test_the_export_does_not_import_benchmarks():
    assert not offenders("glnet_export", lambda name: package_of(name) == "glnet_bench")
