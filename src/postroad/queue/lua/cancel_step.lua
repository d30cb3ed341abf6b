-- End jobs of cancelled groups: first those in lanes, then a slice of the schedule.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  limit   ids to process, 1 to 1000
-- ARGV[3]  after   scheduled jobs to skip, by due time
-- returns  ids processed (fewer than limit: complete), of these scheduled, ended of these, ended in total
-- cost     O(n log S)

local limit, after = tonumber(ARGV[2]), tonumber(ARGV[3])
local n_ended, looked = q.cancel_step(limit)
-- Slices shift when jobs become due meanwhile. A job that is missed ends when it is due.
local ids = looked < limit and call('ZRANGE', keys.scheduled, after, after + limit - looked - 1) or {}
local records, causes, gone = q.get_many(keys.jobs, ids), {}, {}
for i, id in ipairs(ids) do
  local job = q.read_record(records[i])
  if causes[job.lane] == nil then causes[job.lane] = call('HGET', keys.cancelled_lanes, job.lane) end
  if causes[job.lane] then
    gone[#gone + 1] = id
    q.end_job('cancelled', id, job.lane, { token = q.this_token(), attempt = job.attempts, cause = causes[job.lane] })
  end
end
q.call_many('ZREM', keys.scheduled, gone)
q.finish()
return { looked + #ids, #ids, #gone, n_ended + #gone }
