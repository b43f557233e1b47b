"""An S3 dialect of this machine: moto's server, and a door before it that cuts a put in the middle."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Door:
    """Passes bytes on to a server, and cuts the connection within the body of a put while `cuts` are left."""

    def __init__(self, behind: int) -> None:
        self.behind, self.cuts, self.cut = behind, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.behind)) as server, suppress(OSError):
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65_536):
                if self.cuts and data.startswith(b"PUT ") and b"/part-" in data.partition(b"\r\n")[0]:
                    self.cuts, self.cut = self.cuts - 1, self.cut + 1
                    head, _, body = data.partition(b"\r\n\r\n")
                    server.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
                    server.shutdown(socket.SHUT_RDWR)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(data)

    def close(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def s3_door() -> Iterator[Door]:
    """The door of an S3 server that runs until the block ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    door = Door(server.get_host_and_port()[1])
    try:
        yield door
    finally:
        door.close()
        server.stop()
