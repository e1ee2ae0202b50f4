"""Runs the scripted server; prints `listening on PORT` once it accepts connections."""

import argparse
import asyncio
import os
import socket
import sys
import threading

import uvicorn

from tests.scripted_model.server import ScriptedServer


def main() -> None:
    """Serve until a signal, or until stdin ends when a test owns this process."""
    parser = argparse.ArgumentParser(prog="python -m tests.scripted_model", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this")
    arguments = parser.parse_args()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.host, arguments.port))
    listener.listen(4096)
    config = uvicorn.Config(
        ScriptedServer(),
        lifespan="off",
        log_level="critical",
        access_log=False,
        interface="asgi3",
        ws="none",
        timeout_graceful_shutdown=0,
        timeout_keep_alive=60,
    )
    if arguments.until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
