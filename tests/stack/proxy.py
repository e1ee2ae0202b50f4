"""A TCP door in front of one server, which a test can freeze, cut and open again without touching the server."""

import contextlib
import selectors
import socket
import threading
import time

FROZEN_SECONDS = 0.02


class Proxy:
    """Forwards connections to `target`; one thread serves all of them."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._lock = threading.RLock()
        self._is_frozen = self._is_cut = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target[1]}", daemon=True)
        self._thread.start()

    def freeze(self) -> None:
        """Forward nothing: connections stay open and nobody answers, as with a server that hangs."""
        self._is_frozen = True

    def cut(self) -> None:
        """Break every connection and refuse new ones, as with a server that was killed."""
        with self._lock:
            self._is_cut = True
            self._selector.unregister(self._listener)
            self._listener.close()
            for connection in list(self._peers):
                self._drop(connection)

    def heal(self) -> None:
        """Forward again."""
        with self._lock:
            if self._is_cut:
                self._listener = self._listen(self.port)
                self._selector.register(self._listener, selectors.EVENT_READ)
            self._is_cut = self._is_frozen = False

    def close(self) -> None:
        """End the thread and every connection."""
        self._is_closing = True
        self._thread.join(timeout=5)
        with self._lock:
            for connection in list(self._peers):
                self._drop(connection)
            self._listener.close()
            self._selector.close()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
        return listener

    def _run(self) -> None:
        while not self._is_closing:
            if self._is_frozen:
                time.sleep(FROZEN_SECONDS)
                continue
            with self._lock:
                ready = [key.fileobj for key, _ in self._selector.select(timeout=0)]
                for connection in ready:
                    self._serve(connection)  # type: ignore[arg-type]
            if not ready:
                with contextlib.suppress(OSError, ValueError):
                    self._selector.select(timeout=FROZEN_SECONDS)

    def _serve(self, connection: socket.socket) -> None:
        if connection is self._listener:
            self._accept()
        elif connection in self._peers:
            self._forward(connection)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, connection: socket.socket) -> None:
        try:
            content = connection.recv(1 << 16)
            if content:
                self._peers[connection].sendall(content)
                return
        except OSError:
            pass
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        peer = self._peers.pop(connection, None)
        if peer is None:
            return
        self._peers.pop(peer, None)
        for one in (connection, peer):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            one.close()
