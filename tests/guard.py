"""No test reaches the network:
a Python process that runs `install()` refuses everything but its own machine, and notes it.

conftest.py installs it in the test process and in the kernels of notebooks, tests/browser in JupyterLab's server. Other
children get a proxy that does not exist. A refused attempt is an OSError, which the code under test may swallow: so it
is noted, too, in the file that CGI_NETWORK_LOG names, and the running test fails.
"""

import ipaddress
import os
import platform
import sys
from pathlib import Path

ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}  # event -> where its argument is
NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0}
PROXY = "http://127.0.0.1:9"  # the port of the discard service, which nobody runs


def local(host):
    """True if a name or an address is this machine's own."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost", platform.node()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def watch(event, args):
    """Audit hook: OSError for a look-up of, or a connection to, another machine.
    Sockets of other families have no host."""
    if event in ADDRESSES:
        address = args[ADDRESSES[event]]
        host = address[0] if isinstance(address, tuple) and address and isinstance(address[0], (str, bytes)) else None
    elif event in NAMES:
        host = args[NAMES[event]]
    else:
        return
    if not local(host):
        with open(os.environ["CGI_NETWORK_LOG"], "a") as log:
            log.write(f"{event} {host}\n")
        raise OSError(f"the tests use no network, but {event} asks for {host}")


def install():
    """Guard this process for good: an audit hook cannot be taken away."""
    sys.addaudithook(watch)


def start_line():
    """A line of Python that guards the process that runs it and leaves no name behind."""
    names = {"__name__": "guarded", "__file__": __file__}
    return f"exec(compile(open({__file__!r}).read(), {__file__!r}, 'exec'), {names!r})\n"


def environment(folder):
    """Variables for children: kernels install the guard when they start, everything else finds a dead proxy."""
    startup = Path(folder, "profile_default", "startup")
    startup.mkdir(parents=True)
    (startup / "00-no-network.py").write_text(start_line())
    proxies = {f"{kind}_proxy": PROXY for kind in ("http", "https", "all")}
    proxies["no_proxy"] = "localhost,127.0.0.1,::1"
    return {
        "IPYTHONDIR": str(folder),
        "CGI_NETWORK_LOG": str(Path(folder, "network.log")),
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
    }


if __name__ == "guarded":
    install()
