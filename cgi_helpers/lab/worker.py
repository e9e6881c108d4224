"""One background thread that always works on the newest request."""

import os
import sys
import threading
import traceback


def synchronous_here():
    """Whether to compute inside callbacks:
    as CGI_SYNC says (1 or 0), else in Colab, which does not show updates from threads."""
    return os.environ["CGI_SYNC"] == "1" if "CGI_SYNC" in os.environ else "google.colab" in sys.modules


class Worker:
    """Runs `job(cancel)` on one thread;
    a newer `submit` sets the running job's `cancel` event and replaces waiting ones.

    Which thread a widget callback runs on differs between ipykernel versions, so callbacks only submit.
    `synchronous`: run at once in the caller (papermill, nbval, Colab); None: see `synchronous_here`.
    """

    def __init__(self, synchronous=None):
        self.synchronous = synchronous_here() if synchronous is None else synchronous
        self.condition, self.waiting, self.cancel, self.thread = threading.Condition(), None, threading.Event(), None
        self.busy = self.closed = False

    def submit(self, job):
        """Queue `job`, cancelling whatever runs or waits."""
        if self.synchronous and not self.closed:
            job(threading.Event())
            return
        with self.condition:
            if self.closed:
                return
            self.cancel.set()
            self.waiting = job
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._work, daemon=True, name="lab-worker")
                self.thread.start()
            self.condition.notify_all()

    def stop(self):
        """Cancel what runs and forget what waits; True if there was either."""
        with self.condition:
            found = self.busy or self.waiting is not None
            self.cancel.set()
            self.waiting = None
            return found

    def close(self):
        """Stop for ever: the thread ends, later requests are ignored."""
        with self.condition:
            self.stop()
            self.closed = True
            self.condition.notify_all()

    def _work(self):
        while True:
            with self.condition:
                if self.waiting is None:
                    self.busy = False
                    self.condition.notify_all()
                    if (
                        not self.condition.wait_for(lambda: self.waiting is not None or self.closed, timeout=30)
                        or self.closed
                    ):
                        self.thread = None
                        return
                job, self.waiting, self.busy = self.waiting, None, True
                self.cancel = cancel = threading.Event()
            try:
                job(cancel)
            except Exception:  # the next request still needs this thread
                traceback.print_exc()

    def wait(self, timeout=None):
        """Block until nothing runs or waits (tests); False on timeout."""
        with self.condition:
            return self.condition.wait_for(lambda: self.waiting is None and not self.busy, timeout)
