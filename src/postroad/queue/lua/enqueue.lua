-- Enqueue jobs in one lane, or schedule those that are due later. A known id is not changed.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms      empty for the server's TIME
-- ARGV[2]  definition  the lane, msgpack [name, class, weight, gates, group]
-- ARGV[3]  times       msgpack [[due_ms, expires_ms], ...], one pair per job; 0: now, never
-- ARGV[4…] jobs        id, payload, id, payload, ...; at most 1000 jobs
-- returns  how many were accepted
-- cost     O(n); O(n log S) for scheduled ones

local lane = q.lane_by_definition(ARGV[2])
local times, ids = cmsgpack.unpack(ARGV[3]), {}
for i = 1, #times do ids[i] = ARGV[2 + 2 * i] end
local live = q.get_many(keys.jobs, ids)
local remembered = call('EXISTS', keys.remembered) == 1 and q.get_many(keys.remembered, ids) or {}
local any_cancelled = call('EXISTS', keys.cancelled) == 1

-- Most jobs of one call have the same header.
local header_due_ms, header_expires_ms, header
local function header_of(due_ms, expires_ms)
  if due_ms ~= header_due_ms or expires_ms ~= header_expires_ms then
    local since_ms = math.max(due_ms, now_ms)
    local job = { lane = lane.n, attempts = 0, closed = 0, expires_ms = expires_ms, since_ms = since_ms }
    header_due_ms, header_expires_ms, header = due_ms, expires_ms, q.pack_record(job, '')
  end
  return header
end

-- Remove the old entry of an id that was cancelled and forgotten, if its lane still lists it.
local function remove_cancelled(id)
  local listed_in = call('HGET', keys.cancelled, id)
  if not listed_in then return end
  local old = q.lane_of(tonumber(listed_in))
  call('LREM', old.list, 1, id)
  call('HDEL', keys.cancelled, id)
  q.add_depth(old.class, -1)
  if call('EXISTS', old.list) == 0 then q.clear_lane_state(old) end
end

local new, seen, records, accepted = {}, {}, {}, 0
for i, id in ipairs(ids) do
  if not (live[i] or remembered[i] or seen[id]) then
    seen[id] = true
    accepted = accepted + 1
    new[accepted] = i
    records[2 * accepted - 1] = id
    records[2 * accepted] = header_of(times[i][1], times[i][2]) .. ARGV[3 + 2 * i]
  end
end
q.call_many('HSET', keys.jobs, records)
for _, i in ipairs(new) do
  local id, due_ms = ids[i], times[i][1]
  if any_cancelled then remove_cancelled(id) end
  if due_ms > now_ms then
    call('ZADD', keys.scheduled, q.int(due_ms), id)
  else
    q.push_tail(lane.n, id)
  end
end
q.adjust_live(lane.n, accepted)
q.count('enqueued', accepted)
q.count('known', #times - accepted)
q.finish()
return accepted
