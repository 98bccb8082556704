import pickle

import pytest

from glnet_infer.errors import LONGEST_MESSAGE, BundleError, GlnetError, InputError


def test_a_message_says_what_why_and_what_to_do():
    error = InputError("It failed.", why="it is red", fix="paint it")
    assert str(error) == "It failed.\n  why: it is red\n  what to do: paint it"
    assert str(InputError("It failed.", fix="paint it")) == "It failed.\n  what to do: paint it"


@pytest.mark.parametrize("lengths", [(5000, 0, 0), (30, 5000, 100), (2000, 2000, 2000), (250, 5000, 250), (601, 1, 1)])
def test_long_messages_are_shortened_in_their_longest_texts(lengths):
    what, why, fix = ("".join(chr(97 + i % 26) for i in range(length)) for length in lengths)
    error = GlnetError(what, why=why, fix=fix)
    assert LONGEST_MESSAGE - 30 <= len(str(error)) <= LONGEST_MESSAGE  # labels of empty texts are counted too
    for text, shown in ((what, error.what), (why, error.why), (fix, error.fix)):
        begin, dots, end = shown.partition("...")
        assert shown == text or (dots and text.startswith(begin) and text.endswith(end))
    assert len(fix) > 150 or error.fix == fix


def test_foreign_texts_cannot_command_a_terminal():
    error = BundleError("a\x1b[31mred\u202ename\nnext\tline \udcff", why="é 人 is kept")
    assert error.what == "a\\x1b[31mred\\u202ename next line \\udcff" and error.why == "é 人 is kept"
    str(error).encode()


def test_errors_pass_between_processes():
    error = pickle.loads(pickle.dumps(BundleError("What.", why="why", fix="fix")))
    assert type(error) is BundleError and str(error) == str(BundleError("What.", why="why", fix="fix"))
