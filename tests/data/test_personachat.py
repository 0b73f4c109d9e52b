"""Tests PersonaChat through TFDS: download, preparation and the dialogues of the reader."""

import functools
import http.server
import io
import tarfile
import threading

import pytest

from mtml_jax.data import personachat
from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.personachat import download, load_personachat, prepared

TEXT = (
    "1 your persona: i row, mostly.\n2 your persona: i bake.\n"
    "3 __SILENCE__\tahoy , ça va ?\n4 oui .\tbon !\n"
    "1 your persona: i nap.\n2 ahoy , ça va ?\toui .\n"
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home"


def folder(path, **files):
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.txt").write_text(text)
    return path


@pytest.mark.parametrize("name", [
    "train_self_original_no_cands", "train_self_original", "train_self_revised_no_cands",
    "train_self_revised", "train_both_original", "train_none_original_no_cands",
])  # fmt: skip
def test_every_form_gives_the_dialogues_of_the_reader(tmp_path, name):
    text = TEXT
    if "both" in name:
        text = TEXT.replace("2 your persona: i bake.", "2 partner's persona: i bake.")
    if "none" in name:
        text = "1 ahoy\tça va ?\n2 oui\tbon !\n"
    if "no_cands" not in name:
        text = text.replace(" !\n", " !\t\tone|two\n")
    source = folder(tmp_path / "texts", **{name: text})
    dialogues, notes = load_personachat("train", source)
    assert dialogues == read_parlai(source / f"{name}.txt")[0]
    assert notes == [] and dialogues[0].turns[-1].response == "bon !"


def test_records_are_read_at_random(tmp_path):
    source = folder(tmp_path / "texts", train_self_original=TEXT)
    records = prepared(source).as_data_source("train")
    assert len(records) == 2
    assert [text.decode() for text in records[1]["contexts"]] == ["ahoy , ça va ?"]
    assert records[0]["conversation"] == records[1]["conversation"]


def test_some_splits_are_enough_and_a_missing_one_is_named(tmp_path):
    source = folder(tmp_path / "texts", valid_self_original=TEXT)
    assert len(load_personachat("valid", source)[0]) == 2
    with pytest.raises(FileNotFoundError, match="train_self_original_no_cands.txt.*--data_dir"):
        load_personachat("train", source)


def test_a_changed_folder_never_meets_an_old_copy(tmp_path):
    source = folder(tmp_path / "texts", train_self_original=TEXT)
    first = prepared(source).data_dir
    same = folder(tmp_path / "same", train_self_original=TEXT)
    assert prepared(same).data_dir == first
    other = folder(tmp_path / "other", train_self_original=TEXT.replace("bon", "bof"))
    (source / "train_self_original.txt").write_text(TEXT.replace("bon", "zut"))
    more = folder(tmp_path / "more", train_self_original=TEXT, test_self_original=TEXT)
    paths = {first, *(prepared(path).data_dir for path in (source, other, more))}
    assert len(paths) == 4
    assert load_personachat("train", source)[0][0].turns[-1].response == "zut !"


def test_a_malformed_line_stops_or_is_counted(tmp_path):
    source = folder(tmp_path / "texts", train_self_original=TEXT + "1 no tab\n")
    for _ in range(2):  # the failure leaves nothing that a second try would read
        with pytest.raises(ValueError, match=r"train_self_original.txt:7: expected .*, got 'no tab'"):
            load_personachat("train", source)
    for _ in range(2):  # prepared, then read again
        dialogues, notes = load_personachat("train", source, skip_bad=True)
        assert len(dialogues) == 2
        assert "3 dialogues, 2 read; 1 skipped (malformed)" in notes[0]


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def serve():
    """A function (path -> bytes) -> (address of a loopback server, list of its requests)."""
    servers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def __init__(self, pages, seen, length, *rest):
            self.pages, self.seen, self.length = pages, seen, length
            super().__init__(*rest)

        def do_GET(self):
            self.seen.append(self.path)
            if self.path not in self.pages:
                self.send_error(404)
                return
            body = self.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(self.length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def start(pages, length=None):
        seen = []
        handler = functools.partial(Handler, pages, seen, length)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}", seen

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_download_and_preparation(serve, tmp_path, home, monkeypatch):
    other = TEXT.replace("bon", "bof")
    tar = archive({
        "personachat/train_self_original.txt": TEXT,
        "personachat/train_both_original.txt": other,
        "personachat/valid_none_original.txt": other,
        "personachat/valid_self_revised.txt": TEXT,
        "../../test_self_original.txt": TEXT,  # its folder is not believed
        "personachat/train_other_original.txt": other,
    })  # fmt: skip
    address, seen = serve({"/personachat.tgz": tar})
    monkeypatch.setattr(personachat, "URL", f"{address}/personachat.tgz")
    source = folder(tmp_path / "texts", train_self_original=TEXT)
    plain, _ = read_parlai(find_split(source, "train"))
    for split in ("train", "valid", "test", "train"):
        assert load_personachat(split) == (plain, [])
    assert seen == ["/personachat.tgz"]
    unpacked = sorted(path.name for path in (home / "archives").rglob("*.txt"))
    assert unpacked == [
        "test_self_original.txt", "train_self_original.txt", "valid_self_revised.txt",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.txt"))


@pytest.mark.parametrize("body, length, part", [
    (archive({"readme.txt": "hello"}), None, "without any of these files"),
    (b"no archive", None, "could not be downloaded"),
    (archive({"train_self_original.txt": TEXT})[:150], None, "could not be downloaded"),
    (archive({"train_self_original.txt": TEXT}), 10_000, "it ended after"),
    (None, None, "404"),
])  # fmt: skip
def test_a_failed_download_says_what_to_do_and_leaves_nothing(serve, home, body, length, part):
    address, _ = serve({"/a.tgz": body} if body else {}, length)
    with pytest.raises(FileNotFoundError) as error:
        download(f"{address}/a.tgz")
    message = str(error.value)
    for wanted in (part, "--data_dir", "train_self_original_no_cands.txt"):
        assert wanted in message
    assert "\n" not in message
    assert not list((home / "archives").iterdir())


def test_an_archive_follows_no_link_and_has_a_bound(serve, home, tmp_path, monkeypatch):
    secret = tmp_path / "secret.txt"
    secret.write_text(TEXT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, kind, target in [
            ("train_self_original.txt", tarfile.SYMTYPE, str(secret)),
            ("valid_self_original.txt", tarfile.LNKTYPE, "../../../secret.txt"),
            ("test_self_original.txt", tarfile.FIFOTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    big = archive({"train_self_original.txt": TEXT})
    address, _ = serve({"/links.tgz": buffer.getvalue(), "/big.tgz": big})
    with pytest.raises(FileNotFoundError, match="without any of these files"):
        download(f"{address}/links.tgz")
    monkeypatch.setattr(personachat, "_MOST", len(big) - 1)
    with pytest.raises(FileNotFoundError, match="has more than"):
        download(f"{address}/big.tgz")
    monkeypatch.setattr(personachat, "_MOST", len(TEXT))
    big = archive({"train_self_original.txt": TEXT * 2})
    assert len(big) < len(TEXT) * 2
    address, _ = serve({"/big.tgz": big})
    monkeypatch.setattr(personachat, "_MOST", max(len(big), len(TEXT)))
    with pytest.raises(FileNotFoundError, match="unpacks to more than"):
        download(f"{address}/big.tgz")
    assert not list((home / "archives").iterdir())


@pytest.mark.parametrize("split", [*(pytest.param(name, marks=pytest.mark.long) for name in ("train", "valid")), "test"])
def test_the_real_dialogues_byte_for_byte(shared_data, split):
    source = shared_data / "personachat"
    plain, _ = read_parlai(find_split(source, split))
    assert load_personachat(split, source) == (plain, [])
