"""A bucket in this process that speaks as much of S3 as the artifact store asks of one."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

PAGE = 3
"""Objects of one answer to a list: small, so that a test meets several."""


class Bucket:
    """``objects`` by key: (bytes, when they were put).  ``lists`` counts the pages asked for."""

    def __init__(self, name: str = "reports") -> None:
        self.name = name
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.lists = 0
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def environment(self) -> dict[str, str]:
        """What makes the library find this bucket."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-test-1",
            "AWS_ACCESS_KEY_ID": "key-id",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    bucket: Bucket

    def do_PUT(self) -> None:
        self.bucket.objects[self._key()] = (self._body(), datetime.now(UTC))
        self._say(200, b"", etag='"1"')

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query)
            return
        found = self.bucket.objects.get(self._key())
        if found is None:
            self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        data, put_at = found
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        self._say(200, data, etag=etag, last_modified=f"{put_at:%a, %d %b %Y %H:%M:%S} GMT")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        assert urlsplit(self.path).query == "delete"
        names = [node.text for node in ElementTree.fromstring(self._body()).iter() if _is(node)]
        for name in names:
            self.bucket.objects.pop(str(name), None)
        deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
        self._say(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, query: dict[str, list[str]]) -> None:
        self.bucket.lists += 1
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        prefix = query.get("prefix", [""])[0]
        names = [key for key in sorted(self.bucket.objects) if key.startswith(prefix)]
        left = [key for key in names if key > after]
        page = left[:PAGE]
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.bucket.objects[key][0])}</Size>"
            f"<LastModified>{self.bucket.objects[key][1]:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            '<ETag>"1"</ETag></Contents>'
            for key in page
        )
        more = len(left) > PAGE
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        self._say(
            200,
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}"
            "</ListBucketResult>".encode(),
        )

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{self.bucket.name}/")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _is(node: ElementTree.Element) -> bool:
    return node.tag.rpartition("}")[2] == "Key"
