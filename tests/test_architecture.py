"""Which room may import which. CONTRIBUTING.md shows the same as a picture; here it is a table that fails."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "glnet_infer": "glnet_infer",
    "glnet": "models/glnet",
    "glnet_render": "models/glnet_render",
    "glnet_train": "models/glnet_train",
    "glnet_export": "export/glnet_export",
    "glnet_bench": "benchmarks/glnet_bench",
}

GROUND = {
    "archives",
    "bodies",
    "claims",
    "contract",
    "devices",
    "entry_points",
    "errors",
    "fields",
    "files",
    "forks",
    "native_messages",
    "numbers",
    "onnx_files",
    "onnxruntime_sessions",
    "rotations",
    "skeleton",
    "version",
}
PIXELS = {"images", "image_files", "crops", "camera", "device_arrays"}

# A room of the runtime, and the rooms below it that it may import.
MAY_IMPORT = {
    "bundle": GROUND,
    "images": GROUND | {"device_arrays"},
    "image_files": GROUND | {"images"},
    "camera": GROUND,
    "crops": GROUND | {"camera"},
    "device_arrays": GROUND,
    "results": GROUND | PIXELS,
    "viewer": GROUND | PIXELS | {"results"},
    "backends": GROUND | {"bundle", "device_arrays"},
    "detection": GROUND | PIXELS,
    "persons": GROUND | PIXELS | {"backends", "detection"},
    "video": GROUND | PIXELS | {"results", "detection"},  # it follows with whatever recovers persons
    "recoverer": GROUND | PIXELS | {"bundle", "results", "backends", "detection", "persons", "video"},
    "serving": GROUND | PIXELS | {"bundle", "results", "backends", "detection", "persons", "recoverer"},
    "jobs": GROUND | PIXELS | {"bundle", "results", "backends", "detection", "persons", "recoverer", "video"},
}

# A room of the network, and the rooms below it. Body and kinematics know no network; what is adopted stands on top.
NETWORK = {
    "parts": set(),
    "position_errors": set(),
    "sampling": set(),
    "mixed_precision": set(),
    "rotations": set(),
    "config": set(),
    "pickles": set(),
    "weights": {"pickles"},
    "kinematics": {"rotations"},
    "body": {"kinematics", "pickles", "rotations"},
    "estimate": {"config", "rotations"},
    "hrnet": {"config"},
    "local_encoding": {"config", "parts", "sampling"},
    "network": {"config", "estimate", "hrnet", "local_encoding", "mixed_precision", "parts"},
    "recovery": {"body", "sampling"},
    "decoding": {"body", "config", "estimate", "network", "recovery", "rotations", "sampling"},
    "checkpoint": {"config", "network", "weights"},
    "backbones": {"config", "hrnet", "weights"},
    "random_init": {"body", "config", "decoding", "network", "recovery"},
    "backend": {"recovery"},
    "adopted": {
        "body",
        "checkpoint",
        "config",
        "estimate",
        "hrnet",
        "kinematics",
        "mixed_precision",
        "network",
        "recovery",
        "rotations",
        "weights",
    },
}

# A room of the training, and the rooms below it.
TRAINING_GROUND = {"distributed", "recipe"}
TRAINING = {
    "distributed": set(),
    "recipe": set(),
    "data": TRAINING_GROUND,
    "objective": TRAINING_GROUND,
    "scores": TRAINING_GROUND | {"data"},
    "fit": TRAINING_GROUND | {"data", "objective", "scores"},
    "comparison": TRAINING_GROUND | {"fit", "objective", "scores"},
}

ROOMS = {
    "glnet_infer": dict.fromkeys(GROUND, GROUND) | MAY_IMPORT,
    "glnet": NETWORK,
    "glnet_train": TRAINING,
}

# Who, and what they never import, not even inside a function. A name stands for all that is below it.
NEVER = [
    ("glnet_infer", "glnet glnet_render glnet_train glnet_export glnet_bench"),  # it is what production installs
    ("glnet_infer", "torch onnx onnxscript scipy smplx jaxtyping"),
    ("glnet", "glnet_render glnet_train glnet_export glnet_bench onnx onnxruntime"),
    ("glnet_render", "glnet_train glnet_export glnet_bench onnx onnxruntime"),
    ("glnet_train", "glnet_export glnet_bench onnx"),
    ("glnet_export", "glnet_train glnet_bench"),  # deploying needs no training
    ("glnet_export.engines", "torch glnet glnet_render"),  # engines are built where production runs
    ("glnet_export.triton", "torch glnet glnet_render"),
    ("glnet_bench", "glnet_train"),
    ("glnet_train.data", "glnet_infer.backends glnet_infer.bundle glnet_infer.recoverer glnet_infer.results"),
    ("glnet_train.objective", "glnet_infer.backends glnet_infer.bundle glnet_infer.recoverer glnet_infer.results"),
    ("glnet_bench.report", "glnet_bench.runners glnet_bench.measure glnet_bench.floor glnet_infer.backends"),
    # The network takes plain data of the runtime; who renders and trains cuts, checks and draws as the runtime does.
    ("glnet", "glnet_infer.commands glnet_infer.backends glnet_infer.bundle glnet_infer.recoverer glnet_infer.results"),
    ("glnet_render", "glnet_infer.commands glnet_infer.backends glnet_infer.bundle glnet_infer.recoverer"),
    # A backend imports no other; the video names no detector and no backend.
    ("glnet_infer.backends.onnxruntime", "glnet_infer.backends.tensorrt glnet_infer.backends.openvino"),
    ("glnet_infer.backends.openvino", "glnet_infer.backends.tensorrt glnet_infer.backends.onnxruntime onnxruntime"),
    ("glnet_infer.backends.tensorrt", "glnet_infer.backends.onnxruntime glnet_infer.backends.openvino"),
    ("glnet_infer.video", "glnet_infer.backends.onnxruntime glnet_infer.backends.tensorrt onnxruntime openvino"),
    ("glnet_infer.backends", "glnet_infer.recoverer glnet_infer.results glnet_infer.video glnet_infer.commands"),
    ("glnet_infer.results", "glnet_infer.backends glnet_infer.recoverer glnet_infer.video"),
    ("glnet_infer.viewer", "glnet_infer.backends glnet_infer.recoverer glnet_infer.video"),
]

# What the runtime loads when it is asked for, inside a function, never at the top of a module.
LAZY = ("onnxruntime", "tensorrt", "openvino", "tritonclient", "ray", "av", "threadpoolctl", "cuda", "pycuda", "PIL")
COMMAND_LINES = ("typer", "rich", "click")


def module_name(package, file):
    parts = file.relative_to(ROOT / FOLDERS[package]).with_suffix("").parts
    return ".".join((package, *parts)).removesuffix(".__init__")


MODULES = {
    module_name(package, file): file for package in FOLDERS for file in sorted((ROOT / FOLDERS[package]).rglob("*.py"))
}


def imports(source, *, top_level_only=False):
    """What a module imports: a submodule where one is named, else the module."""
    tree = ast.parse(source)
    for node in _top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _top_level(tree):
    """All nodes but the bodies of functions, which run when they are called, and of blocks for type checkers."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))


def within(name, scope):
    return name == scope or name.startswith(f"{scope}.")


SOURCES = {name: file.read_text(encoding="utf-8") for name, file in MODULES.items()}


def offenders(sources, who, never):
    return [
        f"{name} imports {imported}"
        for name, source in sources.items()
        if within(name, who)
        for imported in imports(source)
        if any(within(imported, scope) for scope in never)
    ]


def strays(sources):
    """Imports between the rooms of a package that go up, or sideways without leave."""
    found = []
    for name, source in sources.items():
        package, _, room = name.partition(".")
        room = room.split(".")[0]
        if package not in ROOMS or room in ("", "commands"):  # the front door and the command lines see all
            continue
        allowed = ROOMS[package].get(room, set()) | {room}
        for imported in imports(source):
            other = imported.split(".")
            if other[0] == package and (len(other) == 1 or other[1] not in allowed):
                found.append(f"{name} imports {imported}")
    return found


def circles(sources):
    """Modules that import each other, at whatever distance and wherever in their code."""
    arrows = {name: {each for each in imports(source) if each in sources} - {name} for name, source in sources.items()}
    while free := [name for name, targets in arrows.items() if not targets & arrows.keys()]:
        for name in free:
            del arrows[name]
    return sorted(name for name in arrows if _reaches(arrows, name, name))


def _reaches(arrows, start, goal):
    seen, waiting = set(), [start]
    while waiting:
        for target in arrows.get(waiting.pop(), ()):
            if target == goal:
                return True
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return False


def eager(sources):
    """Heavy libraries that the runtime would load with its modules."""
    return [
        f"{name} imports {imported}"
        for name, source in sources.items()
        if within(name, "glnet_infer")
        for imported in imports(source, top_level_only=True)
        if any(within(imported, library) for library in LAZY)
    ]


def of_the_locale(sources):
    """Text that is read or written in the encoding of the machine's locale, which on Windows is not UTF-8."""
    return [
        f"{name}:{node.lineno}"
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _takes_text(node) and all(each.arg != "encoding" for each in node.keywords)
    ]


def _takes_text(call):
    function, named = call.func, {each.arg: getattr(each.value, "value", None) for each in call.keywords}
    if named.get("text") is True or named.get("universal_newlines") is True:
        return True  # of subprocess
    if isinstance(function, ast.Attribute) and function.attr == "open":  # of a path; others' first is a name
        mode = named.get("mode") or (getattr(call.args[0], "value", None) if call.args else "r")
        return isinstance(mode, str) and set(mode) <= set("rwxat+")
    if isinstance(function, ast.Name) and function.id == "open":
        mode = named.get("mode") or (getattr(call.args[1], "value", "r") if len(call.args) > 1 else "r")
        return "b" not in mode
    return isinstance(function, ast.Attribute) and function.attr in ("read_text", "write_text")


@pytest.mark.parametrize("who, never", NEVER, ids=[f"{who}, {never.split()[0]}" for who, never in NEVER])
def test_what_is_never_imported(who, never):
    assert not offenders(SOURCES, who, never.split())
    for name in never.split():  # the rule can fail, for every name in it
        wrong = {f"{who}.stray": f"def work():\n    from {name} import thing\n"}
        assert offenders(wrong, who, never.split()) == [f"{who}.stray imports {name}"]


def test_rooms_import_downwards():
    assert not strays(SOURCES)


@pytest.mark.parametrize("package, room", [(package, room) for package in ROOMS for room in sorted(ROOMS[package])])
def test_every_room_is_held_to_its_floor(package, room):
    forbidden = set(ROOMS[package]) | {"commands"}
    for other in sorted(forbidden - ROOMS[package][room] - {room}):
        found = strays({f"{package}.{room}": f"import {package}.{other}"})
        assert found == [f"{package}.{room} imports {package}.{other}"]


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_the_table(package):
    rooms = {name.split(".")[1] for name in MODULES if name.startswith(f"{package}.")}
    assert rooms <= set(ROOMS[package]) | {"commands"}


def test_there_is_no_import_circle():
    assert not circles(SOURCES)
    wrong = {"a": "import b", "b": "def work():\n    from c import x", "c": "import a, d", "d": "import e", "e": ""}
    assert circles(wrong) == ["a", "b", "c"]


def test_heavy_libraries_are_loaded_when_asked_for():
    assert not eager(SOURCES)
    for library in LAZY:
        assert eager({"glnet_infer.x": f"try:\n    import {library}\nexcept ImportError:\n    pass\n"})
        assert not eager({"glnet_infer.x": f"def work():\n    import {library}\n"})


def test_text_is_utf_8_on_every_machine():
    assert not of_the_locale(SOURCES)
    for function, *arguments in (
        ("run", "command", "text=True"),
        ("Popen", "command", "universal_newlines=True"),
        ("path.read_text",),
        ("path.write_text", "words"),
        ("path.open",),
        ("path.open", "'w'"),
        ("path.open", "mode='a'"),
        ("open", "path"),
        ("open", "path", "'x'"),
    ):
        assert of_the_locale({"x": f"{function}({', '.join(arguments)})"}) == ["x:1"], (function, arguments)
        assert not of_the_locale({"x": f"{function}({', '.join([*arguments, 'encoding=utf8'])})"})
    for right in ("path.open('rb')", "open(path, 'wb')", "run(command)", "Bundle.open(path)", "archive.open(entry, 'w')"):
        assert not of_the_locale({"x": right}), right


@pytest.mark.parametrize("package", ["glnet_infer", "glnet_train"])
def test_only_command_lines_import_typer_and_rich(package):
    found = offenders(SOURCES, package, (*COMMAND_LINES, "glnet_infer.commands"))
    assert found and all(line.startswith(f"{package}.commands.") for line in found)


def test_files_stay_short():
    long = {name: count for name, source in SOURCES.items() if (count := source.count("\n")) > 420}
    assert not long  # about 400 lines: a longer one has more than one purpose
