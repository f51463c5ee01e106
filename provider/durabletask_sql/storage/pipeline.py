"""Prepared statements in libpq's pipeline mode, over psycopg's `pq` objects.

psycopg's cursors cost several times what a statement of the commit path costs the server; this is what remains of them:
prepare once, send binary parameters, wait for all replies of a flush in one round trip.
"""

import selectors
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from durabletask_sql.storage.yielding import waited_on_loop

_READ, _BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
_BINARY = pq.Format.BINARY
_LONGEST_NAME = 20
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)


class Pipeline:
    """A connection in pipeline mode, for one thread."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Take over a connection that nothing else uses from now on."""
        self._connection = connection
        self._pq = connection.pgconn
        self._pq.nonblocking = 1
        self._pq.enter_pipeline_mode()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pq.socket, _READ)
        self._transformer = Transformer(connection)
        self._names: dict[bytes, bytes] = {}
        self._prepared = 0
        self._expected: list[bytes | None] = []  # for each reply, the text if it is that of a preparation

    def send(self, text: bytes, parameters: Sequence[bytes | None]) -> None:
        """Queue a statement; its text is prepared when it is first seen."""
        name = self._names.get(text)
        if name is None:
            self._prepared += 1
            # A short text, like COMMIT, is its own name: whoever looks at the connection sees it each time.
            name = self._names[text] = text if len(text) <= _LONGEST_NAME else b"s%d" % self._prepared
            self._pq.send_prepare(name, text)
            self._expected.append(text)
        self._pq.send_query_prepared(name, parameters, [_BINARY] * len(parameters), _BINARY)
        self._expected.append(None)

    def send_once(self, text: bytes, parameters: Sequence[bytes | None]) -> None:
        """Queue a statement that was built for the occasion and is not kept."""
        self._pq.send_query_params(text, parameters, None, [_BINARY] * len(parameters), _BINARY)
        self._expected.append(None)

    def sync(self) -> list[pq.abc.PGresult]:
        """Send what is queued and return the replies of the statements, in order, failed ones included.

        Raises psycopg.OperationalError when the connection is lost.
        """
        self._pq.pipeline_sync()
        expected, self._expected = self._expected, []
        found = []
        for reply, preparation in zip(self._receive(), expected, strict=True):
            if preparation is not None and has_failed(reply):
                del self._names[preparation]
            if preparation is None or reply.status == pq.ExecStatus.FATAL_ERROR:
                found.append(reply)
        return found

    def _receive(self) -> list[pq.abc.PGresult]:
        """Receive until the answer to the sync; sending and receiving go on together, so that neither side blocks."""
        connection, replies = self._pq, list[pq.abc.PGresult]()
        sending = self._sends()
        while True:
            self._wait(sending=sending)
            if sending:
                sending = self._sends()
            connection.consume_input()  # reads what is there, and does not wait
            while not connection.is_busy():
                reply = connection.get_result()
                if reply is None:  # the end of one statement's replies
                    continue
                if reply.status == pq.ExecStatus.PIPELINE_SYNC:
                    return replies
                replies.append(reply)

    def _wait(self, *, sending: bool) -> None:
        """Wait until something can be read, or sent if something is left to be."""
        if not waited_on_loop(self._pq.socket, writes=sending):
            self._selector.modify(self._pq.socket, _BOTH if sending else _READ)
            self._selector.select()

    def _sends(self) -> bool:
        """Flush what can be flushed without waiting; tell whether something is left."""
        return bool(self._pq.flush())

    def rows(self, reply: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """Return the rows of a reply."""
        if not reply.ntuples:
            return []
        self._transformer.set_pgresult(reply)
        return self._transformer.load_rows(0, reply.ntuples, tuple)

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._pq.status != pq.ConnStatus.OK

    def close(self) -> None:
        """Close the connection."""
        self._selector.close()
        self._connection.close()


def has_failed(reply: pq.abc.PGresult) -> bool:
    """Tell whether a statement failed, or was passed over because one before it did."""
    return reply.status in _FAILED
