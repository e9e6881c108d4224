"""The file button without a browser: pieces become one file."""

import pytest

from cgi_helpers.lab.browser import FilePicker


@pytest.fixture
def got():
    return []


@pytest.fixture
def picker(got):
    return FilePicker(lambda name, content: got.append((name, content)), lambda sentence: got.append(sentence))


def send(picker, number, part, parts, content, name="a.png"):
    picker._handle_custom_msg({"number": number, "part": part, "parts": parts, "name": name}, [memoryview(content)])


def test_pieces_become_one_file(picker, got):
    for i, piece in enumerate((b"one", b"two", b"three")):
        assert got == []
        send(picker, "1", i, 3, piece)
    assert got == [("a.png", b"onetwothree")] and picker.parts == {}


def test_pieces_are_joined_by_their_number(picker, got):
    for i, piece in ((2, b"three"), (0, b"one"), (0, b"one"), (1, b"two")):
        send(picker, "1", i, 3, piece)
    assert got == [("a.png", b"onetwothree")]


def test_a_newer_file_replaces_one_that_is_on_its_way(picker, got):
    send(picker, "1", 0, 2, b"old")
    send(picker, "2", 0, 1, b"new", "b.png")
    assert got == [("b.png", b"new")]


def test_the_same_file_can_be_chosen_again_and_empty_files_arrive(picker, got):
    for number in "12":
        send(picker, number, 0, 1, b"")
    assert got == [("a.png", b"")] * 2


def test_what_the_browser_refuses_is_told(picker, got):
    picker._handle_custom_msg({"refused": "too large."}, [])
    assert got == ["too large."]
