#!/usr/bin/env bash
# A range of bytes, asked for as of any other store of fsspec, is other bytes on s3fs, or an error.
#
# fsspec's AbstractFileSystem has cat_file(path, start=None, end=None, **kwargs), and disk, memory and HTTP take the two
# by position. In s3fs the second argument is version_id. cat_file(path, 0, 5) takes 0 for no version and 5 for the
# start: it gives all but the first five bytes, without a word. cat_file(path, 6, 11) asks for the version 6 and fails
# with ParamValidationError. With start= and end= all agree. Code that was tried on memory:// or on a disk, as is usual,
# passes its tests. fsspec and s3fs 2026.9.0, against moto 5.2.5.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "fsspec==2026.9.0" "s3fs==2026.9.0" "moto[s3]==5.2.5" flask flask-cors
export AWS_ACCESS_KEY_ID=somebody AWS_SECRET_ACCESS_KEY=something AWS_DEFAULT_REGION=us-east-1
python - <<'PYTHON'
import inspect
import logging
import pathlib
import tempfile

import fsspec
import s3fs
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("fsspec", fsspec.__version__, "and s3fs", s3fs.__version__)
print("fsspec:", inspect.signature(fsspec.AbstractFileSystem.cat_file))
print("s3fs:  ", inspect.signature(s3fs.S3FileSystem._cat_file))
s3 = s3fs.S3FileSystem(endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
s3.mkdir("bucket")
file = pathlib.Path(tempfile.mkdtemp()) / "a"
stores = {"disk": (fsspec.filesystem("file"), str(file)), "memory": (fsspec.filesystem("memory"), "/a"), "s3": (s3, "bucket/a")}
seen = {}
for name, (store, path) in stores.items():
    store.pipe(path, b"hello world")
    for start, end in ((0, 5), (6, 11)):
        try:
            found = store.cat_file(path, start, end)
        except Exception as error:
            found = type(error).__name__
        seen[name, start] = found, store.cat_file(path, start=start, end=end)
        print(f"{name:7} {start:2} to {end:2}: by position {found}, by name {seen[name, start][1]}")
server.stop()
expected = {(name, start): (word, word) for name in stores for start, word in ((0, b"hello"), (6, b"world"))}
expected |= {("s3", 0): (b" world", b"hello"), ("s3", 6): ("ParamValidationError", b"world")}
assert seen == expected, "the finding no longer holds"
print("still so")
PYTHON
