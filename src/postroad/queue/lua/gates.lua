-- Every gate: limits, what is in flight, lanes parked on it, what it admits now. Read-only.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- returns  msgpack [{name, fields as stored, parked, wake_ms or -1, room or -1 for no limit}, ...]
-- cost     O(G)

local out = {}
local names = call('SMEMBERS', keys.gates)
table.sort(names)
for i, name in ipairs(names) do out[i] = q.show_gate(name) end
return cmsgpack.pack(out)
