"""The archive of an exported program: a zip file, of which only the parts that a profile needs are read.

Nothing in it is unpickled, and no library in it is opened. Parts that no version of torch reads as plain data are
refused by name.
"""

from __future__ import annotations

import mmap
import re
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from cspprof.core.errors import SourceError
from cspprof.sources.exported_program.json_values import MalformedError, parse_json, shorten
from cspprof.sources.spec_mistakes import check_is_file

HINT = "Write one with torch.export.save(torch.export.export(model, inputs), 'model.pt2')"

UNPACKED = 64 << 20
"""The bytes that the compressed entries of an archive may have, beyond the size of the file. torch compresses none."""

LEGACY_PROGRAM = "serialized_exported_program.json"
"""The program in files that torch 2.7 and earlier versions wrote."""

READ = re.compile(
    r"models/[^/]+\.json|data/weights/(weight_\d+|[^/]+_weights_config\.json|[^/]+\.pt)"
    r"|data/constants/(tensor_\d+|[^/]+_constants_config\.json|[^/]+\.pt)"
    rf"|{re.escape(LEGACY_PROGRAM)}|byteorder"
)
NOT_READ = re.compile(
    r"data/sample_inputs/[^/]+\.pt|extra/.*|extra_files/.*|archive_format|archive_version|version|\.data/\w+"
    r"|\.format_version|\.storage_alignment|serialized_\w+\.(pt|json)"
)
"""Entries that torch.export.save writes and a profile does not need: pickled example inputs and weights, text of the
user."""

CODE = {
    "data/aotinductor/": "a compiled library",
    "data/constants/custom_obj_": "a pickled object that is not a tensor",
    "data/constants/opaque_obj_": "a pickled object that is not a tensor",
    "executorch/": "a program of ExecuTorch",
    "models/": "a part that is not a program models/NAME.json",
}
"""Parts that torch's loader would run, unpickle or open as a program, by the beginning of their names."""


class Archive:
    """The entries of a `.pt2` file. Use it as a context manager; buffers that `read` returned stay valid afterwards."""

    def __init__(self, path: Path) -> None:
        """Open the file and check the names of all entries. Raises SourceError and MalformedError."""
        self.path = path
        try:
            check_is_file(path)
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError):
            raise SourceError(
                f"{path.name} is not an exported program: it is not an archive (a pickle, or incomplete?)", HINT
            ) from None
        self._size = path.stat().st_size
        self._stored = self._unpacked = 0
        """The bytes of the entries that were read."""
        self._contents: dict[str, memoryview] = {}
        self._map: mmap.mmap | None = None
        try:
            self._entries = self._checked_entries()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """The entries by name, without the folder that torch puts them in."""
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        names = [info.filename for info in infos]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise MalformedError(f"its archive contains {shorten(twice[0])} twice")
        bad = [name for name in names if not name or name.startswith("/") or "\\" in name or ".." in name.split("/")]
        if bad:
            raise MalformedError(f"its archive contains {shorten(bad[0])}, a path out of its folder")
        folder = ""
        if names and LEGACY_PROGRAM not in names:
            folder = names[0].partition("/")[0] + "/"
        outside = [name for name in names if not name.startswith(folder)]
        if outside:
            raise MalformedError(f"its archive contains {shorten(outside[0])} outside the folder {shorten(folder)}")
        entries = {name[len(folder) :]: info for name, info in zip(names, infos, strict=True)}
        if not any(re.match(rf"models/|{re.escape(LEGACY_PROGRAM)}", name) for name in entries):
            kind = "a checkpoint or TorchScript of torch.save" if "data.pkl" in entries else "empty"
            kind = "a compiled model of AOTInductor" if any("aotinductor/" in n for n in entries) else kind
            raise SourceError(f"{self.path.name} is not an exported program: it contains no graph ({kind}?)", HINT)
        for name in entries:
            if READ.fullmatch(name) or NOT_READ.fullmatch(name):
                continue
            kind = next((kind for prefix, kind in CODE.items() if name.startswith(prefix)), "an unknown part")
            raise MalformedError(
                f"its archive contains {kind}: {shorten(name)}",
                "It is not loaded, because that could run code. Export the model without it.",
            )
        return entries

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def programs(self) -> list[str]:
        """The names of the programs: `model` for `models/model.json`."""
        return [n.removeprefix("models/").removesuffix(".json") for n in self._entries if n.startswith("models/")]

    def json(self, name: str) -> Any:
        """The parsed content of an entry. Raises MalformedError."""
        return parse_json(bytes(self.read(name)), name)

    def size(self, name: str) -> int:
        """The bytes of an entry, as it states them; -1 if there is no such entry."""
        return self._entries[name].file_size if name in self._entries else -1

    def read(self, name: str) -> memoryview:
        """The bytes of an entry, unpacked at most once. Those of an entry that is not compressed are mapped, so reading
        them costs no memory. Raises MalformedError.
        """
        if name not in self._contents:
            self._contents[name] = self._read(name)
        return self._contents[name]

    def _read(self, name: str) -> memoryview:
        info = self._entries.get(name)
        if info is None:
            raise MalformedError(f"its archive has no {shorten(name)}")
        if info.flag_bits & 1:
            raise MalformedError(f"{shorten(name)} in its archive is encrypted")
        if info.compress_type == zipfile.ZIP_STORED:
            self._stored += info.file_size
            if self._stored > self._size:
                raise MalformedError(f"{shorten(name)} in its archive overlaps other parts")
            return self._mapped(name, info)
        if info.compress_type != zipfile.ZIP_DEFLATED:
            raise MalformedError(f"{shorten(name)} in its archive is compressed with an unknown method")
        self._unpacked += info.file_size
        if self._unpacked > self._size + UNPACKED:
            raise MalformedError(
                f"{shorten(name)} in its archive unpacks to {info.file_size:,} bytes, more than a file of "
                f"{self._size:,} bytes may",
                "torch.export.save writes archives without compression: export the model again.",
            )
        try:
            with self._zip.open(info) as stream:
                data = stream.read(info.file_size)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise MalformedError(f"{shorten(name)} in its archive is damaged: {error}") from None
        if len(data) != info.file_size:
            raise MalformedError(f"{shorten(name)} in its archive is incomplete")
        return memoryview(bytearray(data))

    def _mapped(self, name: str, info: zipfile.ZipInfo) -> memoryview:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        header = self._map[info.header_offset : info.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04" or info.file_size != info.compress_size:
            raise MalformedError(f"{shorten(name)} in its archive is damaged")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > self._size:
            raise MalformedError(f"{shorten(name)} in its archive is incomplete")
        return memoryview(self._map)[start : start + info.file_size]
