-- Mark jobs just before their irreversible act: a lease that runs out now leaves the job uncertain.
-- uses     base lanes gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  leases  msgpack [[id, token], ...]
-- returns  1 per lease that still holds, else 0
-- cost     O(n)

local wanted, ids, held = cmsgpack.unpack(ARGV[2]), {}, {}
for i, pair in ipairs(wanted) do ids[i] = pair[1] end
local leases = get_many(LEASES, ids)
for i, pair in ipairs(wanted) do
  local lease = leases[i] and read_lease(leases[i])
  held[i] = 0
  if lease and lease.token == pair[2] then
    held[i] = 1
    if lease.marked == 0 then
      lease.marked = 1
      call('HSET', LEASES, pair[1], pack_lease(lease))
    end
  end
end
return held
