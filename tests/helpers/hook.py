"""An HTTP server that takes alerts, for tests."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hook:
    """Answers POSTs on loopback, first with ``codes``, then with 200. held: answer only after :meth:`release`.

    ``got``: the JSON of each accepted call. ``calls``: the number of calls received.
    """

    def __init__(self, *codes: int, held: bool = False):
        codes = list(codes)
        self.got, self.calls = [], 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        if not held:
            self.release()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"]))
                with hook._lock:
                    hook.calls += 1
                    code = codes.pop(0) if codes else 200
                hook._released.wait()
                if code == 200 and self.headers["Content-Type"] == "application/json":
                    hook.got.append(json.loads(text))
                self.send_response(code)
                if code in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # a client may have disconnected
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/secret"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def release(self) -> None:
        self._released.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()
        self._server.shutdown()
        self._server.server_close()
