-- Return gates, one step of a scan: limits, jobs in flight, parked lanes, capacity. Read-only.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  cursor  0 at first, then what this returned
-- ARGV[3]  limit   approximate number of gates
-- returns  the next cursor, 0 at the end; msgpack [{name, fields as stored, parked, wake_ms or -1, room or -1 for no limit}, ...]
-- cost     O(limit log n)

local found, out = call('SSCAN', keys.gates, ARGV[2], 'COUNT', tonumber(ARGV[3])), {}
for i, name in ipairs(found[2]) do out[i] = q.show_gate(name) end
return { found[1], cmsgpack.pack(out) }
