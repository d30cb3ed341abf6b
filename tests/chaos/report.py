from __future__ import annotations
import json
def as_json(s, r): return json.dumps({"blows": r.blows, "ok": r.ok})
def as_table(s, r): return repr(r)
