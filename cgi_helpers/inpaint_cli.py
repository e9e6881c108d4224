"""`python -m cgi_helpers inpaint photo.png --mask hole.png --out filled.png [-n 4] [--preset P] [--json]`: fill a hole.

The mask is black where the picture is missing and white where it is known, or a name: center, block, half, ... Of both
the middle square is taken, at the preset's size, which is the size of what is written, too. With -n 4 the files are
filled-1.png to filled-4.png.
"""

import argparse
import json
import sys
from pathlib import Path

from .api import inpaint, pretrained, to_picture
from .method.masks import MASKS
from .pipeline.artifacts import ArtifactError, atomic_write


class Parser(argparse.ArgumentParser):
    """Says in one sentence what was wrong with the arguments."""

    def error(self, message):
        raise ValueError(f"{message[0].upper()}{message[1:]}: see `{self.prog} --help`.")


def read_arguments(arguments):
    """The arguments of one call; ValueError in one sentence."""
    parser = Parser(
        prog="python -m cgi_helpers inpaint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="a PNG, JPEG, WebP or BMP picture")
    parser.add_argument("--mask", required=True, help=f"a picture with a black hole, or {', '.join(MASKS)}")
    parser.add_argument("--out", required=True, help="the PNG to write")
    parser.add_argument("-n", type=int, default=1, help="number of completions")
    parser.add_argument("--preset", default=None, help="smoke, laptop (default), desktop, mnist, paper, ...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of random masks and of completions after the first")
    parser.add_argument("--no-refine", action="store_true", help="semantic inpainting: the search alone")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument("--json", action="store_true", help="write the facts of each completion to the standard output")
    return parser.parse_args(arguments)


def check_free(path, force):
    """Raise ValueError if `path` exists and may not be replaced."""
    if path.exists() and (path.is_dir() or not force):
        raise ValueError(
            f"{path} is a folder: name a file."
            if path.is_dir()
            else f"{path} exists already: choose another --out, or replace it by --force."
        )


def outputs(out, n):
    """The `n` paths to write."""
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, which loses nothing, but is {str(out)!r}.")
    return [out] if n == 1 else [out.with_stem(f"{out.stem}-{k + 1}") for k in range(n)]


def write(picture, path, force):
    """Write a PIL image as PNG, whole or not at all; a file that appeared meanwhile is not lost either."""

    def to(temporary):
        picture.save(temporary, format="PNG")
        check_free(path, force)

    atomic_write(path, to)


def main(arguments=None):
    """Exit code of one call: 0, or 2 after one sentence on stderr."""
    try:
        args = read_arguments(arguments)
        paths = outputs(args.out, args.n)
        for path in paths:
            check_free(path, args.force)
        model = pretrained(args.preset, device=args.device)
        images, facts = inpaint(
            args.image, args.mask, refine=not args.no_refine, seed=args.seed, n=args.n, preset=model
        )
        for path, image in zip(paths, images):
            write(to_picture(image), path, args.force)
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: nothing was lost; run the same command again.", file=sys.stderr)
        return 130
    if args.json:
        found = [{"file": str(path), **fact} for path, fact in zip(paths, facts)]
        print(json.dumps({"preset": model.preset.name, "seed": args.seed, "completions": found}, indent=1))
        return 0
    for path, fact in zip(paths, facts):
        context, step = fact["losses"]["context"], fact["steps"]["refinement"]
        print(
            f"{path}: context loss {context:.2f}, logit {fact['score_before']:.2f} before the refinement, "
            f"{fact['score']:.2f} at its step {step}"
        )
    return 0
