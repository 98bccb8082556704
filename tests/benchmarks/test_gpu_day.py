"""make gpu: one folder with a page that reads well; a step that fails or hangs takes nothing along."""

import json
import subprocess
import sys

import pytest

from glnet_bench import gpu_day
from glnet_bench.gpu_day import Step, main, run, steps
from glnet_infer.devices import Gpu, gpus
from glnet_infer.errors import BackendError


def python(code):
    return (sys.executable, "-c", code)


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "glnet_bench.gpu_day", str(tmp_path / "out")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == BackendError.exit_code == 8
    assert "no NVIDIA GPU" in done.stderr and "what to do:" in done.stderr and not (tmp_path / "out").exists()


def test_a_page_of_all_steps_is_written_whatever_becomes_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day, "gpus", lambda: [Gpu("NVIDIA H200", "9.0")])
    done = [
        Step("good", python("import pathlib; print('12 passed'); pathlib.Path('report.md')"), 30),
        Step(
            "shown", python(f"open(r'{tmp_path / 'out' / 'shown.md'}', 'w').write('# Title\\n\\n| a |\\n')"), 30, "shown.md"
        ),
        Step("bad", python("raise SystemExit(7)"), 30),
        Step("hanging", python("import time; print('begun', flush=True); time.sleep(60)"), 5),
    ]
    monkeypatch.setattr(gpu_day, "steps", lambda folder: done)
    monkeypatch.setattr(sys, "argv", ["gpu_day", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    text = (tmp_path / "out" / "README.md").read_text()
    assert "# NVIDIA H200" in text and "compute capability 9.0" in text and "12 passed" in text and "| a |" in text
    found = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert {name: each["status"] for name, each in found.items()} == {
        "good": "done",
        "shown": "done",
        "bad": "exit code 7",
        "hanging": "stopped after 5 s",
    }
    assert "begun" in (tmp_path / "out" / "hanging.txt").read_text()


def test_no_step_begins_when_no_time_is_left(tmp_path):
    outcome = run(Step("late", python("print(1)"), 30), tmp_path, 1.0)
    assert outcome.status.startswith("left out") and not list(tmp_path.iterdir())


def test_all_steps_fit_into_the_budget_or_are_cut(tmp_path):
    planned = steps(tmp_path)
    names = [step.name for step in planned]
    assert names[:3] == ["tests", "export-w32", "bench-w32"] and {"speed", "bench-demo"} <= set(names)
    # The first three are what would be missed most; they fit surely.
    assert sum(step.limit for step in planned[:3]) < gpu_day.BUDGET == 480


@pytest.mark.parametrize("name", ["export-w32", "speed", "bench-w32", "doctor"])
def test_the_commands_exist_and_run_from_the_checkout(name, tmp_path):
    (step,) = (step for step in steps(tmp_path) if step.name == name)
    arguments = step.command[3:4] if name == "speed" else ()
    outcome = run(Step("help", (*step.command[:3], *arguments, "--help"), 60), tmp_path, 60)
    assert outcome.status == "done" and "Usage:" in outcome.text
