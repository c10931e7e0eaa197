"""How rows go to a child that scores and scores come back: short messages about memory that both share.

A piece of that memory holds the rows as an Arrow stream, then a mark of `MARK` bytes, then the scores of each head.
"""

from __future__ import annotations

import struct

REQUEST = struct.Struct("<4Q")  # bytes of shared memory; of the rows, which come first; where the mark is; rows
ANSWER = struct.Struct("<BI")  # 1: scores are there, 0: a message follows; its bytes
MARK = 64  # bytes before the scores, the first of which is the number of the head being scored
IDLE = 255
