"""Lint of the notebook template: every numbered notebook keeps it, and a notebook that breaks it is caught."""

import ast
import copy
import re
import statistics

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from cgi_helpers.pipeline.figures import notebooks, read
from cgi_helpers.pipeline.plan import plan
from cgi_helpers.pipeline.presets import PRESETS

CELLS, MEDIAN, SHORT, SHARE, LONGEST = (12, 20), 5, 15, 0.9, 25  # code cells; lines per cell, blank ones not counted
DEFINITIONS, REPEATED = 2, 4  # definitions per notebook; lines from which a cell must not stand in two notebooks


def text(cell):
    """Source of a cell (a string, or a list of lines in the file format)."""
    return "".join(cell["source"])


def lines(cell):
    """Its lines, without blank ones."""
    return [line for line in text(cell).splitlines() if line.strip()]


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tree(cell):
    """Syntax tree of a code cell; magics become calls."""
    return ast.parse(TransformerManager().transform_cell(text(cell)))


def is_literal(node):
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def sizes(notebook):
    """Number and length of code cells, number of definitions."""
    counts = [len(lines(cell)) for cell in code_cells(notebook)]
    if not CELLS[0] <= len(counts) <= CELLS[1]:
        yield f"has {len(counts)} code cells instead of {CELLS[0]} to {CELLS[1]}"
    if statistics.median(counts) > MEDIAN:
        yield f"has a median of {statistics.median(counts)} lines per code cell, more than {MEDIAN}"
    if sum(n < SHORT for n in counts) < SHARE * len(counts):
        yield f"has {sum(n >= SHORT for n in counts)} of {len(counts)} code cells with {SHORT} lines or more"
    if max(counts) > LONGEST:
        yield f"has a code cell of {max(counts)} lines, more than {LONGEST}"
    found = [
        node.name
        for cell in code_cells(notebook)
        for node in ast.walk(tree(cell))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    if len(found) > DEFINITIONS:
        yield f"defines {', '.join(found)}: more than {DEFINITIONS}"


def head(notebook):
    """Title, table, parameters, session."""
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not re.match(r"# .*\?\n", text(first) + "\n"):
        yield "does not begin with a title that is a question"
    table = next((line.lower() for line in text(first).splitlines() if line.startswith("|")), "")
    if not all(word in table for word in ("reads", "writes", "time", "smoke", "laptop", "paper")):
        yield "has no table of what it reads, writes and how long it takes per preset"
    cells = code_cells(notebook)
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", [])]
    if tagged != [1]:
        yield "has no single cell tagged `parameters` after the imports"
        return
    body = tree(cells[1]).body
    if not all(isinstance(s, ast.Assign) and is_literal(s.value) for s in body):
        yield "has more than literals in the parameters cell"
    names = [ast.unparse(t) for s in body if isinstance(s, ast.Assign) for t in s.targets]
    if names[:3] != ["preset", "seed", "device"]:
        yield "lacks one of the parameters preset, seed, device"
    if not re.match(
        r"session = (stages\.|session\.)?start\(preset, seed, device\)\n", text(cells[2])
    ) or "session.describe()" not in text(cells[2]):
        yield "does not open and describe the session right after the parameters"


def body(notebook):
    """By hand against the helper, figures, limits, the record; nothing that depends on a preset's name."""
    cells, about = code_cells(notebook), notebook["metadata"].get("cgi", {})
    if not any("torch.testing.assert_close(" in text(cell) for cell in cells):
        yield "checks no step by hand with torch.testing.assert_close"
    for node in (node for cell in cells for node in ast.walk(tree(cell))):
        if (
            isinstance(node, ast.Constant)
            and node.value in PRESETS
            or isinstance(node, ast.Name)
            and node.id in PRESETS
        ):
            yield f"asks for the preset in line: {ast.unparse(node)}"
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "session.figure"
            and isinstance(node.args[1], ast.Constant)
            and node.args[1].value not in about.get("figures", [])
        ):
            yield f"saves the figure {node.args[1].value} but does not name it in its metadata"
    if not any(
        re.search(r"^## .*limits", text(c), re.I | re.M) for c in notebook["cells"] if c["cell_type"] == "markdown"
    ):
        yield "does not say its limits"
    end = tree(cells[-1]).body[-1]
    if not (
        isinstance(end, ast.Expr)
        and isinstance(end.value, ast.Call)
        and ast.unparse(end.value.func) == "session.record"
    ):
        yield "does not end with session.record"
    if notebook["cells"][-1]["cell_type"] != "code":
        yield "goes on after its last code cell"


def stored(notebook):
    """What the file holds beside the cells: metadata, ids, and no results."""
    about = notebook["metadata"].get("cgi", {})
    for key, least in (("stages", 0), ("figures", 1)):  # a notebook that computes all it shows reads no stage
        if not (isinstance(about.get(key), list) and len(about[key]) >= least):
            yield f"has no list of {key} in its cgi metadata"
    unknown = set(about.get("stages", [])) - set(plan(PRESETS["laptop"]))
    if unknown:
        yield f"names the unknown stages {', '.join(sorted(unknown))}"
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "does not ask for the kernel python3"
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        yield "lacks unique cell ids"
    if any(cell["outputs"] or cell["execution_count"] is not None for cell in code_cells(notebook)):
        yield "holds outputs or execution counts: strip it"
    if "widgets" in notebook["metadata"] or "papermill" in notebook["metadata"]:
        yield "holds the traces of a run in its metadata: strip it"


def problems(notebook):
    """Everything that breaks the template, as sentences without subject."""
    return [p for rule in (sizes, head, body, stored) for p in rule(notebook)]


def repetitions(named):
    """Cells of at least REPEATED lines that stand in more than one notebook: name -> notebook."""
    seen = {}
    for name, notebook in named.items():
        for cell in code_cells(notebook):
            key = "\n".join(" ".join(line.split()) for line in lines(cell))
            if len(lines(cell)) >= REPEATED:
                seen.setdefault(key, []).append(f"{name}[{cell.get('id')}]")
    return [where for where in seen.values() if len(where) > 1]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_notebook_keeps_the_template(path):
    assert problems(read(path)) == []


def test_they_are_numbered_and_nothing_is_repeated_between_them():
    named = {path.stem: read(path) for path in notebooks()}
    numbers = [name[:2] for name in named]
    assert len(set(numbers)) == len(numbers) and {f"0{i}" for i in range(10)} == set(numbers)
    assert repetitions(named) == []


def code(source, id, **metadata):
    return {
        "cell_type": "code",
        "id": id,
        "metadata": metadata,
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def good():
    """The smallest notebook that keeps the template."""
    cells = [
        {
            "cell_type": "markdown",
            "id": "title",
            "metadata": {},
            "source": "# 07 · Is this good?\n\n| reads | writes | time: smoke | laptop | paper |\n"
            "|---|---|---|---|---|\n\n## Limits\n",
        },
        code("%matplotlib inline\nimport torch", "imports"),
        code('preset = None\nseed = 0\ndevice = "auto"', "parameters", tags=["parameters"]),
        code("session = stages.start(preset, seed, device)\nprint(session.describe())", "session"),
        code("torch.testing.assert_close(1, 1)", "by-hand"),
        *(code(f"a = {i}\nb = a\nc = b", f"cell-{i}") for i in range(8)),
        code('session.figure(None, "fig01_good")', "figure"),
        code('session.record("07_good", {"preset": session.preset.name})', "record"),
    ]
    return {
        "cells": cells,
        "metadata": {"cgi": {"stages": ["train"], "figures": ["fig01_good"]}, "kernelspec": {"name": "python3"}},
    }


def cell(notebook, id):
    return next(c for c in notebook["cells"] if c["id"] == id)


def swap(id, source):
    """A change that gives one cell another source."""
    return lambda nb: cell(nb, id).update(source=source)


BAD = {
    "code cells instead of": lambda nb: [nb["cells"].pop(5) for _ in range(3)],
    "median of": lambda nb: [cell(nb, f"cell-{i}").update(source="a = 1\n" * 6) for i in range(8)],
    "15 lines or more": lambda nb: [cell(nb, f"cell-{i}").update(source="a = 1\n" * 15) for i in range(2)],
    "of 26 lines": swap("cell-0", "a = 1\n" * 26),
    "defines f, g, C": swap("cell-0", "def f(): pass\ndef g(): pass\nclass C: pass"),
    "title that is a question": swap(
        "title", "# 07 · This is good.\n\n| reads | writes | time: smoke | laptop | paper |\n\n## Limits"
    ),
    "no table": swap("title", "# 07 · Is this good?\n\n## Limits"),
    "does not say its limits": swap(
        "title", "# 07 · Is this good?\n\n| reads | writes | time: smoke | laptop | paper |\n"
    ),
    "no single cell tagged": lambda nb: cell(nb, "parameters").update(metadata={}),
    "more than literals": swap("parameters", 'preset = None\nseed = 0\ndevice = "auto"\nhalf = seed / 2'),
    "lacks one of the parameters": swap("parameters", "preset = None\nseed = 0"),
    "open and describe": swap("session", "session = stages.start(preset, seed)\nprint(session.describe())"),
    "no step by hand": swap("by-hand", "assert 1 == 1"),
    "asks for the preset": swap("cell-0", 'a = 1 if session.preset.name == "smoke" else 2'),
    "asks for the preset in line: smoke": swap("cell-0", "if smoke:\n    a = 1"),
    "does not name it in its metadata": swap("figure", 'session.figure(None, "fig02_other")'),
    "does not end with session.record": swap("record", 'session.record("07_good", {})\nprint("done")'),
    "goes on after": lambda nb: nb["cells"].append(
        {"cell_type": "markdown", "id": "end", "metadata": {}, "source": "The end."}
    ),
    "no list of figures": lambda nb: nb["metadata"]["cgi"].update(figures=[]),
    "no list of stages": lambda nb: nb["metadata"]["cgi"].pop("stages"),
    "unknown stages": lambda nb: nb["metadata"]["cgi"].update(stages=["trian"]),
    "kernel python3": lambda nb: nb["metadata"].pop("kernelspec"),
    "unique cell ids": lambda nb: cell(nb, "cell-1").update(id="cell-0"),
    "strip it": lambda nb: cell(nb, "cell-0").update(
        outputs=[{"output_type": "stream", "name": "stdout", "text": "1"}]
    ),
    "execution counts": lambda nb: cell(nb, "cell-0").update(execution_count=3),
    "traces of a run": lambda nb: nb["metadata"].update(papermill={}),
}


def test_the_smallest_good_notebook_passes():
    assert problems(good()) == []


@pytest.mark.parametrize("sentence", BAD)
def test_a_bad_notebook_fails(sentence):
    notebook = good()
    BAD[sentence](notebook)
    assert any(sentence in problem for problem in problems(notebook)), problems(notebook)


def test_a_repeated_cell_is_found():
    one, other = good(), copy.deepcopy(good())
    assert repetitions({"one": one, "other": other}) == []  # its cells are shorter than four lines
    for notebook, space in ((one, " "), (other, "  ")):
        cell(notebook, "cell-3").update(source=f"a ={space}1\n\nb = 2\nc = 3\nd = 4")
    assert repetitions({"one": one, "other": other}) == [["one[cell-3]", "other[cell-3]"]]
