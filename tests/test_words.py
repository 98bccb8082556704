"""Words that a newcomer reads once: short sentences in the manuals, descriptions that begin with their noun."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MANUALS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("models/demo/*.md")),
]
SOURCES = [
    file for folder in ("glnet_infer", "models", "export", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))
]
LONGEST_SENTENCE = 25  # words

HIDDEN_NOUN = re.compile(r'("""Of |help="Of |^\s+\w+: (Of|As there|As above|Likewise)\b|\blikewise\b)', re.IGNORECASE)


def sentences(markdown):
    """The sentences of running text: no code, tables, headings or links' targets."""
    text = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-*#] |\|)", text):
        if paragraph.lstrip().startswith(("|", "#")):
            continue
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
        plain = " ".join(re.sub(r"`[^`]*`", "Code", plain).split())
        yield from re.split(r"(?<=[.!?:])\**\s+(?=[A-Z*(\"])", plain)


def long_sentences(markdown):
    return [sentence for sentence in sentences(markdown) if len(sentence.split()) > LONGEST_SENTENCE]


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.name)
def test_sentences_of_the_manuals_are_short(manual):
    assert not long_sentences(manual.read_text(encoding="utf-8"))


def test_descriptions_begin_with_their_noun():
    hidden = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in SOURCES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if HIDDEN_NOUN.search(line)
    ]
    assert not hidden


def test_the_checks_see_what_they_look_for():
    words = " ".join(["word"] * 26)
    assert long_sentences(f"Short one. A {words}. `code` is short.") == [f"A {words}."]
    assert not long_sentences(f"    {words} of code\n\n| {words} |\n\n# {words}\n\n[link]({'x ' * 30})")
    for line in (
        '    """Of one node.',
        'help="Of everything."',
        "        seed: Of the pictures.",
        "        frame: As there.",
    ):
        assert HIDDEN_NOUN.search(line)
    assert not HIDDEN_NOUN.search("        seed: Seed of the pictures.")
