-- Renew leases.
-- uses     base lanes gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms    empty for the server's TIME
-- ARGV[2]  leases    msgpack [[id, token], ...]
-- ARGV[3]  lease_ms  from now
-- returns  1 per lease that still holds, else 0
-- cost     O(n log I)

local wanted, ids, held = cmsgpack.unpack(ARGV[2]), {}, {}
for i, pair in ipairs(wanted) do ids[i] = pair[1] end
local leases = get_many(LEASES, ids)
local end_ms = int(now_ms + tonumber(ARGV[3]))
for i, pair in ipairs(wanted) do
  local holds = leases[i] and read_lease(leases[i]).token == pair[2]
  held[i] = holds and 1 or 0
  if holds then call('ZADD', IN_FLIGHT, end_ms, pair[1]) end
end
return held
