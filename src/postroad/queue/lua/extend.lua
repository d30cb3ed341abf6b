-- Renew leases.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms    empty for the server's TIME
-- ARGV[2]  leases    msgpack [[id, ...], [token, ...]]
-- ARGV[3]  lease_ms  from now
-- returns  1 per lease that still holds, else 0
-- cost     O(n log I)

local ids, tokens = unpack(cmsgpack.unpack(ARGV[2]))
local held, ends, end_ms = {}, {}, q.int(now_ms + tonumber(ARGV[3]))
q.each_lease(q.get_many(keys.leases, ids), tokens, function(i)
  held[i] = 1
  ends[#ends + 1], ends[#ends + 2] = end_ms, ids[i]
end, function(i) held[i] = 0 end)
q.call_many('ZADD', keys.inflight, ends)
return held
