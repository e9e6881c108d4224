"""The guard of the tests themselves: the network is refused here, in kernels and in children;
this machine's own addresses work."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nbformat
import pytest

import guard

ELSEWHERE = "192.0.2.1"  # an address kept for documentation: nobody has it


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """`attempts()`: what was refused; noted elsewhere than where it would fail this test."""
    log = tmp_path / "network.log"
    monkeypatch.setenv("CGI_NETWORK_LOG", str(log))
    return lambda: log.read_text().split() if log.exists() else []


@pytest.mark.parametrize(
    "attempt, noted",
    [
        (lambda: socket.create_connection((ELSEWHERE, 80), timeout=5), ["socket.getaddrinfo", ELSEWHERE]),
        (lambda: socket.socket().connect((ELSEWHERE, 80)), ["socket.connect", ELSEWHERE]),
        (lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (ELSEWHERE, 53)), ["socket.sendto", ELSEWHERE]),
        (lambda: socket.gethostbyname("example.org"), ["socket.gethostbyname", "example.org"]),
        (lambda: socket.getaddrinfo(b"example.org", 80), ["socket.getaddrinfo", "b'example.org'"]),
    ],
    ids=["create", "connect", "sendto", "gethostbyname", "getaddrinfo"],
)
def test_other_machines_are_refused_and_noted(attempts, attempt, noted):
    with pytest.raises(OSError, match="the tests use no network"):
        attempt()
    assert attempts() == noted


def test_this_machine_is_reached(attempts):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as there:
        server.accept()[0].close()
        assert there.recv(1) == b""
    assert socket.getaddrinfo("localhost", 80) and attempts() == []
    assert [guard.local(h) for h in ("127.3.2.1", "::1", "::1%lo", "0.0.0.0", None, "10.0.0.1", "example.org")] == [
        True
    ] * 5 + [False] * 2


def test_a_swallowed_attempt_fails_its_test(pytester_like):
    said = pytester_like(
        "import socket\ndef test_quiet():\n    try:\n        socket.socket().connect(('192.0.2.1', 80))\n"
        "    except OSError:\n        pass\ndef test_good():\n    assert True\n"
    )
    assert "this one tried: socket.connect 192.0.2.1" in said and "1 failed, 1 passed" in said


def test_an_order_by_seed_keeps_modules_together(pytester_like):
    source = "import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test_it(i):\n    pass\n"
    options = ("-v", "-p", "no:nbval", "-p", "no:xdist", "-p", "no:anyio")
    seen = [
        [
            line.split(" ")[0]
            for line in pytester_like(source, *options, CGI_TEST_ORDER=seed, files=3).splitlines()
            if "::" in line
        ]
        for seed in ("1", "1", "2", "")
    ]
    assert seen[0] == seen[1] != seen[2] and all(sorted(s) == seen[3] for s in seen)
    files = [name.partition("::")[0] for name in seen[0]]
    assert sum(a != b for a, b in zip(files, files[1:])) == 2  # three modules, each in one piece


@pytest.fixture
def pytester_like(tmp_path):
    """`run(source, *options, files=1, **environment)`:
    what pytest says of test files with this source under the root's conftest.py."""
    here = Path(__file__).resolve().parents[1]

    def run(source, *options, files=1, **environment):
        (tmp_path / "tests").mkdir(exist_ok=True)
        (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
        (tmp_path / "tests" / "guard.py").write_text((here / "tests" / "guard.py").read_text())
        for i in range(files):
            (tmp_path / "tests" / f"test_{i}.py").write_text(source)
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                tmp_path,
                *options,
                tmp_path / "tests",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=600,
        ).stdout

    return run


def test_kernels_are_guarded_and_see_no_new_names(attempts, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    cells = [
        "assert not {'guard', 'watch', 'install', 'os', 'sys'} & set(globals())",
        "import socket\ntry:\n    socket.socket().connect(('192.0.2.1', 80))\n"
        "except OSError as error:\n    print(error)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    assert "the tests use no network" in notebook.cells[1].outputs[0]["text"] and attempts() == [
        "socket.connect",
        ELSEWHERE,
    ]


def test_other_children_find_a_dead_proxy():
    assert urllib.request.getproxies()["https"] == guard.PROXY
    code = f"import urllib.request; urllib.request.urlopen('http://{ELSEWHERE}/', timeout=600)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert child.returncode and "Connection refused" in child.stderr
