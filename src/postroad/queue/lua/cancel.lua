-- Cancel queued and scheduled jobs. Others are not affected.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  cause
-- ARGV[3…] ids     at most 1000
-- returns  how many were cancelled
-- cost     O(n log S)

local cancelled, seen = 0, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', keys.jobs, id)
  local elsewhere = call('HEXISTS', keys.leases, id) == 1 or call('HEXISTS', keys.held, id) == 1 or call('HEXISTS', keys.letters, id) == 1
  if record and not elsewhere and not seen[id] then
    seen[id] = true
    local job = q.read_record(record)
    -- Taking an id out of a long list is slow: it stays there, marked, and the claim that meets it drops it.
    if call('ZREM', keys.scheduled, id) == 0 then call('HSET', keys.cancelled, id, job.lane) end
    q.end_job('cancelled', id, job.lane, { token = q.this_token(), attempt = job.attempts, cause = ARGV[2] })
    cancelled = cancelled + 1
  end
end
q.finish()
return cancelled
