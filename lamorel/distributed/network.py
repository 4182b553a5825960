"""Addresses: by which one this machine reaches the others, and the interface that has it. Needs no torch."""

import os
import socket
import struct

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface
_INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


def local_address(other: str) -> str:
    """The address of this machine that `other`, a host name or an address, sees."""
    family, _, _, _, target = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)  # of UDP: chooses a route, sends nothing
        return probe.getsockname()[0]


def choose_interface(main_process_ip: str) -> None:
    """Makes gloo use the interface by which this machine reaches the first one, unless the user chose another.

    By itself gloo takes the address of the host's name, which on many machines is that of the loopback interface.
    """
    if _INTERFACE_VARIABLE in os.environ:
        return
    try:
        interface = _interface_of(local_address(main_process_ip))
    except OSError:
        return  # gloo's own choice
    if interface is not None:
        os.environ[_INTERFACE_VARIABLE] = interface


def _interface_of(address: str) -> str | None:
    """The interface with an IPv4 address."""
    import fcntl  # not on every system; without a launcher nobody comes here

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without address
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return None
