-- Every gate: limits, what is in flight, lanes parked on it, what it admits now. Read-only.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- returns  msgpack [{name, fields as stored, parked, wake_ms or -1, room or -1 for no limit}, ...]
-- cost     O(G)

local out = {}
local names = call('SMEMBERS', GATES)
table.sort(names)
for i, name in ipairs(names) do
  local gate = gate_of(name)
  local shown = {}
  for _, field in ipairs(FIELDS) do shown[field] = gate[field] end
  local n = room(gate)
  local wake = tonumber(call('ZSCORE', WAKE, name) or nil)
  shown.name = name
  shown.room = n == INF and -1 or n
  shown.wake_ms = (wake and wake < INF) and wake or -1
  shown.parked = 0
  for _, class in ipairs(CLASSES) do shown.parked = shown.parked + call('ZCARD', parked_key(gate, class)) end
  out[i] = shown
end
return cmsgpack.pack(out)
