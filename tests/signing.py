"""What somebody does who changes the files of a saved folder."""

import hashlib
import json


def rewrite(folder, **changes):
    """Change the manifest."""
    file = folder / "dialpref.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def resign(folder):
    """What somebody would do who changes files on purpose: correct the sums."""
    manifest = json.loads((folder / "dialpref.json").read_text())
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in manifest["files"]
    }
    rewrite(folder, files=files)
