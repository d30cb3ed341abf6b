-- Put jobs into one lane, or into the schedule when they are due later. A known id is left as it is.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms      empty for the server's TIME
-- ARGV[2]  definition  the lane, msgpack [name, class, weight, gates, group]
-- ARGV[3]  times       msgpack [[due_ms, expires_ms], ...], one pair per job; 0: now, never
-- ARGV[4…] jobs        id, payload, id, payload, ...; at most 1000 jobs
-- returns  how many were accepted
-- cost     O(n); O(n log S) for scheduled ones

local lane = q.lane_by_definition(ARGV[2])
local times = cmsgpack.unpack(ARGV[3])
local any_remembered = call('EXISTS', keys.remembered) == 1
local any_cancelled = call('EXISTS', keys.cancelled) == 1
local accepted = 0

for i = 1, #times do
  local id, payload = ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  local due_ms, expires_ms = times[i][1], times[i][2]
  if not (any_remembered and call('HEXISTS', keys.remembered, id) == 1) then
    local job = { lane = lane.n, attempts = 0, closed = 0, expires_ms = expires_ms, since_ms = math.max(due_ms, now_ms) }
    if call('HSETNX', keys.jobs, id, q.pack_record(job, payload)) == 1 then
      accepted = accepted + 1
      if any_cancelled then
        -- The id was cancelled and forgotten while its old entry still stands in a lane: that one has to go.
        local stands_in = call('HGET', keys.cancelled, id)
        if stands_in then
          local old = q.lane_of(tonumber(stands_in))
          call('LREM', old.list, 1, id)
          call('HDEL', keys.cancelled, id)
          q.deepen(old.class, -1)
          if call('EXISTS', old.list) == 0 then q.evict(old) end
        end
      end
      if due_ms > now_ms then
        call('ZADD', keys.scheduled, q.int(due_ms), id)
      else
        q.push_tail(lane.n, id)
      end
    end
  end
end
q.tie(lane.n, accepted)
q.count('enqueued', accepted)
q.count('known', #times - accepted)
q.finish()
return accepted
