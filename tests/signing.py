"""What somebody does who changes the files of a saved folder."""

import hashlib
import json


def rewrite(folder, **changes):
    """Change the manifest."""
    file = folder / "dialpref.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def resign(folder):
    """What somebody would do who changes files on purpose: correct the sums and sizes."""
    names = json.loads((folder / "dialpref.json").read_text())["files"]
    contents = {name: (folder / name).read_bytes() for name in names}
    rewrite(
        folder,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        bytes={name: len(content) for name, content in contents.items()},
    )
