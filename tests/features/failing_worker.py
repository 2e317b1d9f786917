"""A process of a shared command, of which the second fails; prints what the first says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fullrank.errors import DataError, FullrankError
from fullrank.features.process_group import sharing

if __name__ == "__main__":
    rank, world, rendezvous = sys.argv[1:]
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    os.environ |= {"FULLRANK_MEETING": f"file://{rendezvous}"}
    how = {"data": DataError("photos: 9 of 9 images\ncannot be decoded"), "memory": MemoryError("9 bytes")}
    kind = Path(rendezvous).name
    said = ""
    try:
        with sharing(["evaluate"]) as peers:
            if peers.rank:
                raise how[kind]
            peers.sums(1.0)
    except (FullrankError, MemoryError) as error:
        said = str(error)
    except SystemExit as ended:
        said = f"code {ended.code}"
    print(json.dumps({"said": said}))
