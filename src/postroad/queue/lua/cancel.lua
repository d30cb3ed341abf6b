-- Cancel jobs that wait in a lane or in the schedule; others are left alone.
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
  local record = call('HGET', JOBS, id)
  local elsewhere = call('HEXISTS', LEASES, id) == 1 or call('HEXISTS', HELD, id) == 1 or call('HEXISTS', LETTERS, id) == 1
  if record and not elsewhere and not seen[id] then
    seen[id] = true
    local job = read_record(record)
    -- Taking an id out of a long list is slow: it stays there, marked, and the claim that meets it drops it.
    if call('ZREM', SCHEDULED, id) == 0 then call('HSET', CANCELLED, id, job.lane) end
    end_job('cancelled', id, job.lane, { token = this_token(), attempt = job.attempts, cause = ARGV[2] })
    cancelled = cancelled + 1
  end
end
finish()
return cancelled
