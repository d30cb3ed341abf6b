-- Return the processes of this queue, latest heartbeat first. Read-only.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  limit   maximum number of processes
-- returns  msgpack [age_ms, ...], then a record per process
-- cost     O(n)

local found = call('ZREVRANGE', keys.beats, 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')
local ids, ages = {}, {}
for i = 1, #found, 2 do
  ids[#ids + 1] = found[i]
  ages[#ages + 1] = math.max(now_ms - tonumber(found[i + 1]), 0)
end
local reply = { cmsgpack.pack(ages) }
for i, record in ipairs(q.get_many(keys.processes, ids)) do reply[i + 1] = record or '' end
return reply
