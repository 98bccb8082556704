"""What the manuals name is there: commands and their options, targets of make, files and headings of links."""

import re
from pathlib import Path

import pytest
import typer

import glnet_bench.cli
import glnet_infer.commands.doctor
import glnet_infer.commands.infer

pytest.importorskip("torch", reason="the commands of export and training are shown too")
import glnet_export.commands.main
import glnet_train.commands.main

ROOT = Path(__file__).parents[1]
MANUALS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md", "models/demo/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
APPS = {
    "infer": glnet_infer.commands.infer.app,
    "doctor": glnet_infer.commands.doctor.app,
    "export": glnet_export.commands.main.app,
    "train": glnet_train.commands.main.app,
    "bench": glnet_bench.cli.app,
}
DEFAULTS = {"export": "checkpoint", "bench": "measure"}  # where no command is named

CALL = re.compile(r"(?<![\w.-])glnet-(\w+)\b([^`|#]*)")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def options():
    """The options of every command: by ``("infer", "")``, or ``("export", "engine")`` where there are several."""
    found = {}
    for program, app in APPS.items():
        command = typer.main.get_command(app)
        for name, each in getattr(command, "commands", {"": command}).items():
            found[program, name] = {"--help", *(opt for one in each.params for opt in (*one.opts, *one.secondary_opts))}
    return found


def unknown_options(markdown, known):
    lines = re.sub(r"\\\n\s*", " ", markdown).splitlines()
    for program, rest in (match.groups() for line in lines for match in CALL.finditer(line)):
        words = rest.split()
        if program not in APPS:
            yield f"glnet-{program}"
            continue
        name = words[0] if words and (program, words[0]) in known else DEFAULTS.get(program, "")
        for option in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", rest):
            if (program, name) in known and option not in known[program, name]:
                yield f"glnet-{program} {name} {option}"


def headings(manual):
    lines = re.sub(r"```.*?```", "", manual.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    return {re.sub(r"[^\w\- ]", "", line.strip("# ").lower()).replace(" ", "-") for line in lines if line.startswith("#")}


def broken_links(manual, markdown):
    for name, heading in LINK.findall(markdown):
        if ":" in name:
            continue
        target = manual.parent / name if name else manual
        if not target.exists() or (heading and target.suffix == ".md" and heading not in headings(target)):
            yield f"{name}#{heading}"


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_manual_names_is_there(manual):
    text = manual.read_text(encoding="utf-8")
    assert not list(unknown_options(text, options()))
    assert not list(broken_links(manual, text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:`|^    )make ([\w-]+)", text, re.MULTILINE)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), targets


def test_the_checks_see_what_they_look_for():
    known = options()
    wrong = "`glnet-infer a.jpg --bundel b`, glnet-bench b --soaks 3, `glnet-export engine b --body c`, `glnet-play x`"
    assert list(unknown_options(wrong, known)) == [
        "glnet-infer  --bundel", "glnet-bench measure --soaks", "glnet-export engine --body", "glnet-play",
    ]  # fmt: skip
    assert list(unknown_options("    glnet-bench ckpt/ \\\n        --fulll", known)) == ["glnet-bench measure --fulll"]
    readme = ROOT / "README.md"
    assert list(broken_links(readme, "[a](docs/nowhere.md) [b](docs/tensorrt.md#no-such) [c](https://example.org)")) == [
        "docs/nowhere.md#", "docs/tensorrt.md#no-such",
    ]  # fmt: skip
