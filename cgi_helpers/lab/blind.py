"""Which is real? Two pictures side by side, blind: chosen by mouse or keyboard, counted with an interval."""

import json
from pathlib import Path

import anywidget
import ipywidgets as widgets
import torch
import traitlets

from ..method.runtime import generator
from ..pipeline.artifacts import ArtifactError, write_json
from ..study.statistics import share
from .recipe import to_bytes
from .views import url

HERE = Path(__file__).parent


class Pair(anywidget.AnyWidget):
    """Two pictures to choose from: click one, or press an arrow key (or 1, 2) while they have the focus."""

    _esm = (HERE / "blind.js").read_text("utf-8")
    pictures = traitlets.List(["", ""]).tag(sync=True)  # PNG data URLs, left and right
    question = traitlets.Unicode("").tag(sync=True)
    verdict = traitlets.Unicode("").tag(sync=True)
    side = traitlets.Int(256).tag(sync=True)  # CSS pixels of a picture

    def __init__(self, chosen, **options):
        super().__init__(**options)
        self.on_msg(lambda widget, message, buffers: chosen(message))


class Trials:
    """The questions of one pair of sets and the answers so far; question i is the same whenever asked.

    first, second: names in `images`, name -> (N, C, H, W) in [-1, 1] of the same N originals. `folder`: where answers
    are kept, one file per pair and seed, continued when it exists; None keeps nothing. ValueError if it is unreadable.
    """

    def __init__(self, images, first, second, seed=0, folder=None):
        if first == second or not {first, second} <= images.keys():
            raise ValueError(f"Choose two different methods of {', '.join(images)}, not {first!r} and {second!r}.")
        self.images, self.names, self.seed, self.answers = images, (first, second), seed, []
        self.path = folder and Path(folder) / f"{first}-against-{second}-seed{seed}.json"
        if self.path and self.path.exists():
            try:
                stored = json.loads(self.path.read_text("utf-8"))
                self.answers = [{"image": int(a["image"]), "right": bool(a["right"])} for a in stored["answers"]]
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ValueError(f"The answers in {self.path} cannot be read: move that file away.") from error

    def trial(self):
        """(index of the image, True if the first set is shown at the right) of the next question."""
        n, i = len(self.images[self.names[0]]), len(self.answers)
        key = self.seed, "blind", *self.names
        order = torch.randperm(n, generator=generator(*key, "round", i // n))  # no image twice in a round
        return int(order[i % n]), bool(torch.rand(1, generator=generator(*key, i)) < 0.5)

    def pictures(self):
        """uint8 arrays (C, H, W), left and right, of the next question."""
        image, turned = self.trial()
        pair = [to_bytes(self.images[name][image]) for name in self.names]
        return pair[::-1] if turned else pair

    def answer(self, right):
        """Choose the right (True) or left picture; True if that is of the first set. Answers are stored at once."""
        image, turned = self.trial()
        self.answers.append({"image": image, "right": bool(right) == turned})
        if self.path:
            first, second = self.names
            write_json(self.path, {"first": first, "second": second, "seed": self.seed, "answers": self.answers})
        return self.answers[-1]["right"]

    def score(self):
        """The result in words: how often the first set was chosen, with its interval."""
        if not self.answers:
            return "No answer yet."
        n, hits = len(self.answers), sum(a["right"] for a in self.answers)
        low, high = share(hits, n)["ci95"]
        verdict = "told apart" if low > 0.5 or high < 0.5 else "not told apart"
        words = f"{self.names[0]} chosen {hits} of {n} times: {hits / n:.0%} [{low:.0%}, {high:.0%}]"
        return f"{words}; {verdict} (chance: 50 %)"


class Blind(widgets.VBox):
    """The page: two menus, a seed, the two pictures and the score."""

    def __init__(self, images, first, second, seed=0, folder=None):
        def menu(label, value):
            return widgets.Dropdown(options=list(images), value=value, description=label)

        self.images, self.folder = images, folder
        self.first, self.second = menu("real or first", first), menu("against", second)
        self.seed = widgets.BoundedIntText(value=seed, min=0, max=2**31 - 1, description="seed")
        self.pair, self.score = Pair(self.chosen), widgets.Label()
        for control in (self.first, self.second, self.seed):
            control.observe(lambda change: self.start(), names="value")
        super().__init__([widgets.HBox([self.first, self.second, self.seed]), self.pair, self.score])
        self.start()

    def start(self):
        """Begin, or go on with, the trials of the present choice."""
        self.trials, self.pair.verdict = None, ""
        try:
            self.trials = Trials(self.images, self.first.value, self.second.value, self.seed.value, self.folder)
            self.show()
        except ValueError as error:
            self.pair.pictures, self.pair.question = ["", ""], ""
            self.score.value = str(error)

    def show(self):
        """The next question and the score so far."""
        self.pair.pictures = [url(p) for p in self.trials.pictures()]
        self.pair.question = f"Question {len(self.trials.answers) + 1}: which one is real? Click it, or press ← or →."
        self.score.value = self.trials.score()

    def chosen(self, message):
        """{"right": true or false} from the browser."""
        if self.trials is None or not isinstance(message.get("right"), bool):
            return
        try:
            hit = self.trials.answer(message["right"])
        except ArtifactError as error:
            self.score.value = str(error)
            return
        self.pair.verdict = "Yes." if hit else f"No, that was {self.trials.names[1]}."
        self.show()
