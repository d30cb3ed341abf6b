-- Change the due time of scheduled jobs. Other jobs are not affected.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  due_ms  one that has passed: now
-- ARGV[3…] ids     at most 1000
-- returns  1 per job that was in the schedule, else 0
-- cost     O(n log S)

local due_ms, moved = math.max(tonumber(ARGV[2]), now_ms), {}
for i = 3, #ARGV do
  local id = ARGV[i]
  moved[i - 2] = call('ZSCORE', keys.scheduled, id) and 1 or 0
  if moved[i - 2] == 1 then
    local record = call('HGET', keys.jobs, id)
    local job = q.read_record(record)
    job.since_ms = due_ms
    call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(record)))
    if due_ms > now_ms then
      call('ZADD', keys.scheduled, q.int(due_ms), id)
    else
      call('ZREM', keys.scheduled, id)
      q.push_tail(job.lane, id)
    end
  end
end
q.finish()
return moved
