-- Return uncertain jobs: whether their act happened is not known. Read-only.
-- uses     base lanes
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  limit   jobs at most, oldest first
-- ARGV[3]  id      only this one, if not empty
-- returns  msgpack [[id, token, attempt, since_ms, lane, worker, claim], ...]
-- cost     O(n)

local ids = call('ZRANGE', keys.uncertain, 0, tonumber(ARGV[2]) - 1)
if ARGV[3] ~= '' then ids = call('ZSCORE', keys.uncertain, ARGV[3]) and { ARGV[3] } or {} end
local out = {}
for i, id in ipairs(ids) do
  local lease = q.read_lease(call('HGET', keys.held, id))
  local job = q.read_record(call('HGET', keys.jobs, id))
  local since_ms = tonumber(call('ZSCORE', keys.uncertain, id))
  out[i] = { id, lease.token, job.attempts + 1, since_ms, q.lane_of(lease.lane).name, lease.worker, job.closed + 1 }
end
return cmsgpack.pack(out)
