"""Archives that Omniglot's authors published beside its images: github.com/brendenlake/omniglot.

Each is looked for under RNP_DATA and in data/, else downloaded; what it holds is checked.
"""

import hashlib
import os
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from rnp_lib.data import sources
from rnp_lib.data.official import Corrupt
from rnp_lib.data.sources import DataUnavailable
from rnp_lib.files import replacing

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
DIGESTS = {  # by the archive's path there, of the files that it holds
    "strokes_background_small1.zip": (
        "f055e54545ee2aab1e668a0766ed8c318334994231ff91d3f9aba5ee88e2827e"
    ),
    "strokes_background_small2.zip": (
        "b38a4e551d767343e9262c59ee1f5fcbedcdd746bdba79730d88c1d1dcab2ff0"
    ),
    "one-shot-classification/all_runs.zip": (
        "6a1286f3ec009d67282b0d9032564e8fcc2dcd320f35ca764eadb37b2b91b64e"
    ),
}
KINDS = (".txt", ".png")  # other files are of no use

Files = dict[tuple[str, ...], bytes]  # by the last three parts of their paths


def read(archive: str) -> Files:
    """The files of an archive, one of DIGESTS.

    Raises DataUnavailable if it is nowhere to be had.
    """
    name, tried = PurePosixPath(archive).name, []
    for root in [Path(at).expanduser() for at in (os.environ.get("RNP_DATA"), sources.DATA) if at]:
        path = root / "omniglot-py" / name
        try:
            return _read(path, archive)
        except FileNotFoundError:
            tried.append(f"{path} is not there")
        except (OSError, zipfile.BadZipFile, Corrupt) as error:
            tried.append(f"{path}: {error}")
    url = f"{URL}/{archive}"
    if os.environ.get("RNP_OFFLINE") != "1":
        try:
            with (
                urllib.request.urlopen(url, timeout=sources.PATIENCE) as page,
                replacing(sources.DATA / "omniglot-py" / name) as temporary,
            ):
                temporary.write_bytes(page.read())
                return _read(temporary, archive)
        except (OSError, zipfile.BadZipFile, Corrupt) as error:
            tried.append(f"{url}: {error}")
    raise DataUnavailable(
        f"Omniglot's {name} is not available ({'; '.join(tried)}): put it, of "
        f"github.com/brendenlake/omniglot, into {sources.DATA / 'omniglot-py'}."
    )


def _read(path: Path, archive: str) -> Files:
    with zipfile.ZipFile(path) as opened:
        paths = [PurePosixPath(name) for name in sorted(opened.namelist())]
        kept = [at for at in paths if at.suffix in KINDS and not at.name.startswith(".")]
        files = {at.parts[-3:]: opened.read(str(at)) for at in kept}
    if digest(files) != DIGESTS[archive]:
        raise Corrupt("it does not hold the official files")
    return files


def digest(files: Files) -> str:
    """SHA-256 (hex) of files, their names and what they hold."""
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update("/".join(name).encode() + b"\0" + content + b"\0")
    return found.hexdigest()
