"""A TCP proxy before PostgreSQL that can cut a connection around a COMMIT: before it arrives, or before its answer does."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"COMMIT\0"


class CommitCutter:
    """Forwards bytes. Once armed, the next COMMIT that passes is dropped (`before`), or its answer is (`after`)."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._armed = ""
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        user = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{user}@127.0.0.1:{port}"))

    def arm(self, when: str) -> None:
        self._armed = when

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._target.hostname, self._target.port))
            mute = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, mute), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client, mute), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        """Client to server. A cut before COMMIT closes both; one after it lets it through and mutes the answer."""
        try:
            while data := client.recv(65536):
                if self._armed and COMMIT in data:
                    when, self._armed = self._armed, ""
                    self.cuts += 1
                    if when == "before":
                        break
                    mute.set()
                server.sendall(self._passing(data))
        except OSError:
            pass
        for end in (client, server):
            _close(end)

    def _passing(self, data: bytes) -> bytes:
        """Return what reaches the server."""
        return data

    @staticmethod
    def _back(server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        try:
            while data := server.recv(65536):
                if mute.is_set():
                    break
                client.sendall(data)
        except OSError:
            pass
        for end in (client, server):
            _close(end)


class Rewriter(CommitCutter):
    """Replaces one text of what clients send by another of the same length."""

    def __init__(self, url: str, text: bytes, by: bytes) -> None:
        assert len(text) == len(by)
        super().__init__(url)
        self._text = text
        self._by = by
        self.rewritten = 0

    def _passing(self, data: bytes) -> bytes:
        self.rewritten += data.count(self._text)
        return data.replace(self._text, self._by)


def _close(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
