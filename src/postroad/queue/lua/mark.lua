-- Mark jobs directly before their irreversible act: if a marked lease expires, its job is uncertain.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  leases  msgpack [[id, ...], [token, ...]]
-- returns  1 per lease that still holds, else 0
-- cost     O(n)

local ids, tokens = unpack(cmsgpack.unpack(ARGV[2]))
local held, marks = {}, {}
local last, marked
q.each_lease(q.get_many(keys.leases, ids), tokens, function(i, lease)
  held[i] = 1
  if lease.marked == 1 then return end
  if lease ~= last then
    last = lease
    marked = q.pack_lease({ token = lease.token, lane = lease.lane, marked = 1, worker = lease.worker })
  end
  marks[#marks + 1], marks[#marks + 2] = ids[i], marked
end, function(i) held[i] = 0 end)
q.call_many('HSET', keys.leases, marks)
return held
