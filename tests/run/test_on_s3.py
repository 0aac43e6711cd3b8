"""Sources and results in S3: the driver that users have (s3fs), and a server that speaks its protocol (moto)."""

import logging
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from shards import shard

from diffcern.data import encode_png, load_dataset
from diffcern.data.places import Unreachable
from diffcern.errors import DiffcernError
from diffcern.run.storage import storage_of, working_folders

pytestmark = pytest.mark.slow

MODELS = ["--predictor", "embedded:digits", "--prior", "embedded:digits"]
FRAMES = "webdataset:s3://bucket/frames-{000..001}.tar"
ROWS = "part-000000.parquet"


@pytest.fixture(scope="module")
def server():
    """An address on which S3 is spoken."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3]' flask flask-cors")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def store(server, monkeypatch, tmp_path):
    """Its file system, with `frames` in a bucket, in this process and in those that it starts."""
    import s3fs

    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "something"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("XDG_CACHE_HOME", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.mkdir("bucket")
    for number, content in enumerate(frames()):
        store.pipe(f"bucket/frames-{number:03}.tar", content)
    yield store
    store.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def frames():
    """Two shards of fifteen digits."""
    digits = load_dataset("embedded:digits")
    for start in (0, 15):
        samples = [digits[row] for row in range(start, start + 15)]
        yield shard(
            (f"{sample.id.replace('/', '-')}.{suffix}", content)
            for sample in samples
            for suffix, content in (("png", encode_png(sample.image)), ("cls", str(sample.target).encode()))
        )


def command(*given):
    return [sys.executable, "-m", "diffcern", *given]


def test_killed_in_the_middle_it_ends_with_the_files_of_local_shards(store, tmp_path):
    for number, content in enumerate(frames()):
        (tmp_path / f"frames-{number:03}.tar").write_bytes(content)
    here = f"webdataset:{tmp_path}/frames-{{000..001}}.tar"
    subprocess.run(command("adapt", here, *MODELS, "--out", str(tmp_path / "rows")), check=True)

    adapt = command("adapt", FRAMES, *MODELS, "--out", "s3://bucket/rows")
    started = subprocess.Popen(adapt, stderr=subprocess.PIPE)
    while max((len(file.read_bytes().splitlines()) for file in working_folders().glob("*/*.jsonl")), default=0) < 5:
        assert started.poll() is None, started.stderr.read().decode()
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    assert [path.rpartition("/")[2] for path in store.find("bucket/rows")] == ["_manifest.jsonl"]

    again = subprocess.run(adapt, check=True, capture_output=True, text=True)
    assert "continuing: " in again.stderr
    told, wanted = (pq.read_table(file) for file in (store.open(f"bucket/rows/{ROWS}"), tmp_path / "rows" / ROWS))
    assert told.drop_columns("seconds").equals(wanted.drop_columns("seconds"))
    assert not any(working_folders().iterdir())


def test_purified_shards_are_a_source(store, cli):
    code, _, err = cli(
        "purify", FRAMES, *MODELS[2:], "--method", "dda", "--form", "webdataset", "--out", "s3://bucket/p"
    )
    assert code == 0, err
    purified = load_dataset("webdataset:s3://bucket/p")
    assert len(purified) == 30
    assert list(purified.targets) == list(load_dataset(FRAMES).targets)


def test_what_is_not_there_is_said_with_what_to_do(store, monkeypatch, tmp_path):
    nowhere = storage_of("s3://none/rows")
    with nowhere.held(), pytest.raises(DiffcernError, match=r"write s3://none/rows/a: .*; make that bucket first"):
        nowhere.write("a", lambda path: path.write_bytes(b"row"))
    with pytest.raises(DiffcernError, match=r"no \.tar file at s3://bucket/other"):
        load_dataset("webdataset:s3://bucket/other-{000..001}.tar")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    type(store).clear_instance_cache()
    with pytest.raises(Unreachable, match="check your credentials"):
        storage_of("s3://bucket/rows").sizes()


def test_a_server_that_is_gone_ends_the_command(store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(store).clear_instance_cache()
    with pytest.raises(Unreachable, match="run again later"):
        storage_of("s3://bucket/rows").sizes()
