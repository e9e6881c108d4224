"""Several processes on one stage, started by torchrun: who this one is, pieces of work on disk, sharing a batch.

    torchrun --standalone --nproc_per_node 8 -m cgi_helpers encode --preset paper

The processes talk by gloo, on GPUs too: what they exchange is small. Without torchrun there is one process, and every
function here is the plain loop.
"""

import contextlib
import datetime
import os
import shutil
import time

import torch
import torch.distributed as dist

from ..method.runtime import interrupt_between_steps, pick_device
from .artifacts import ArtifactError, atomic_write, fingerprint

PATIENCE = datetime.timedelta(days=7)  # a rank with little to do waits for the others


def rank():
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world():
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextlib.contextmanager
def group():
    """Inside, the processes of this torchrun can wait for each other; alone, nothing happens.
    Entered once per process."""
    if world() == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
        dist.barrier()  # nobody takes gloo's threads down while another process still talks to them
    finally:
        dist.destroy_process_group()


def barrier():
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()


def device(name="auto"):
    """As `runtime.pick_device`; with several processes every one gets the GPU of its number on its machine.

    On a CPU under torchrun every process computes on one thread unless OMP_NUM_THREADS is set, also a single one:
    another number of threads rounds some sums differently, and then 1 and 2 processes would not give the same bytes.
    """
    chosen = pick_device(name)
    if chosen.type == "cuda" and chosen.index is None and world() > 1:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    if chosen.type == "cpu" and "TORCHELASTIC_RUN_ID" in os.environ and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return chosen


def check_shared(folder):
    """Raise ArtifactError unless all processes see the same folder:
    those of other machines hand over their work as files."""
    if world() == 1:
        return
    token = folder / f".shared-{os.environ.get('TORCHELASTIC_RUN_ID', '')}"
    if rank() == 0:
        atomic_write(token, lambda p: p.write_text(""))
    barrier()
    seen, everybody = token.exists(), [None] * world()
    dist.all_gather_object(everybody, seen)
    if rank() == 0:
        token.unlink(missing_ok=True)
    if not all(everybody):
        raise ArtifactError(
            f"{folder} is not the same folder for all processes: put the project, or the folder that CGI_ROOT names, "
            "on a file system that all machines share."
        )


def share(function, items):
    """[function(item) for item in items], item i by process i % world,
    the same list (CPU tensors or tuples of them) in all."""
    own = {i: function(item) for i, item in enumerate(items) if i % world() == rank()}
    if world() == 1:
        return [own[i] for i in range(len(items))]
    everybody = [None] * world()
    dist.all_gather_object(everybody, own)
    return [everybody[i % world()][i] for i in range(len(items))]


def agree(net):
    """Every process continues with the weights and buffers of process 0 (on GPUs equal updates
    may round differently)."""
    if world() > 1:
        for tensor in net.state_dict().values():
            same = tensor.detach().cpu()
            dist.broadcast(same, 0)
            tensor.copy_(same)


class Pieces:
    """Pieces of a stage, one per item, saved one by one in `<stage>.parts/`: piece i by process i % world. Their
    fingerprint is the stage's and the items', so that pieces of another cut are not taken for these.

    What was saved survives a killed process and is found by the next run, with any number of processes. `round`: of a
    stage that goes over its items more than once.
    """

    def __init__(self, session, stage, fresh, items, round=""):
        self.session, self.stage, self.items = session, stage, items
        self.print_ = fingerprint(stage=session.fingerprint(stage), items=[str(item) for item in items])
        self.name = f"{stage.replace(' ', '_')}{round and f'_{round}'}.parts"
        self.folder = session.store.own / self.name
        check_shared(session.store.own)
        if fresh and rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        barrier()

    def _name(self, i):
        return f"{self.name}/{i:05d}"

    def _found(self, i):
        return (self.session.store.metadata(self._name(i)) or {}).get("fingerprint") == self.print_

    def run(self, compute):
        """(list of trees `compute(item)` in order, list of their metadata) in process 0, None in the others.

        `compute` returns a tree, or a tree and a dict of facts, which becomes the piece's metadata "facts".
        Each process computes and saves its missing pieces, then waits for the others.
        On Ctrl-C it saves the present piece first.
        """
        from tqdm.auto import tqdm

        mine = [i for i in range(rank(), len(self.items), world()) if not self._found(i)]
        bar = tqdm(mine, desc=self.stage, mininterval=1, disable=not self.session.progress or rank() > 0)
        with interrupt_between_steps() as asked:
            for i in bar:
                began = time.time()
                tree = compute(self.items[i])
                tree, facts = tree if isinstance(tree, tuple) else (tree, {})
                self.session.store.save(
                    self._name(i),
                    tree,
                    self.stage,
                    self.print_,
                    seconds=time.time() - began,
                    rank=rank(),
                    world=world(),
                    facts=facts,
                )
                if asked.is_set():
                    raise KeyboardInterrupt
        barrier()
        return None if rank() else self.load()

    def load(self):
        """(list of trees in order, list of their metadata) of pieces that were all computed."""
        loaded = [self.session.store.load(self._name(i), self.stage, self.print_) for i in range(len(self.items))]
        return [tree for tree, _ in loaded], [meta for _, meta in loaded]

    def remove(self):
        """Forget the pieces, after the merged result was saved."""
        shutil.rmtree(self.folder, ignore_errors=True)
