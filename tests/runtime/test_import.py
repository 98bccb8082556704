"""What importing the runtime costs."""

import json
import subprocess
import sys

import glnet_infer

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "scipy", "trimesh", "smplx", "typer", "rich")


def in_fresh_python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_importing_the_runtime_loads_numpy_and_opencv_only():
    loaded = in_fresh_python("import glnet_infer, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert "numpy" in loaded and "cv2" in loaded
    assert not [name for name in HEAVY if name in loaded]
    assert not [name for name in ("glnet", "glnet_export") if name in loaded]


def test_importing_the_runtime_costs_less_than_importing_numpy_and_opencv():
    code = """
import sys
start = len(sys.modules)
import numpy, cv2
half_way = len(sys.modules)
import glnet_infer
print((len(sys.modules) - half_way) / (half_way - start))
"""
    # Modules, not seconds, which depend on the machine and on who else is at work: 122 against 174.
    assert in_fresh_python(code) < 1


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
