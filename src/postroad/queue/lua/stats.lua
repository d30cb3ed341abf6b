-- What is where, and what happened since the queue began. Read-only.
-- uses     base lanes
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- returns  msgpack {states, depth, lanes, counters, oldest_ready_ms, events, groups}
-- cost     O(L) of ready lanes, at most 200 per class

local COUNTED = 100

local function hash(key)
  local all, out = call('HGETALL', key), {}
  for i = 1, #all, 2 do out[all[i]] = tonumber(all[i + 1]) end
  return out
end

local states = {
  scheduled = call('ZCARD', SCHEDULED), in_flight = call('HLEN', LEASES), uncertain = call('ZCARD', UNCERTAIN),
  dead = call('ZCARD', DEAD), remembered = call('ZCARD', REMEMBERED),
}
states.queued = call('HLEN', JOBS) - states.scheduled - states.in_flight - states.uncertain - states.dead

local oldest_ms, ready = now_ms, 0
for _, class in ipairs(CLASSES) do
  local key = base .. 'ready:' .. class
  ready = ready + call('ZCARD', key)
  for _, n in ipairs(call('ZRANGE', key, 0, 199)) do
    local id = call('LINDEX', base .. 'lane:' .. n, 0)
    local record = id and call('HGET', JOBS, id)
    if record then oldest_ms = math.min(oldest_ms, read_record(record).since_ms) end
  end
end

local groups = {}
if call('EXISTS', EVENTS) == 1 then
  for i, info in ipairs(call('XINFO', 'GROUPS', EVENTS)) do
    local group = {}
    for j = 1, #info, 2 do group[info[j]] = info[j + 1] end
    -- Few are counted. Of many the server's count does, but it may be absent, and Redis 7.0 counts too many for good
    -- once it was restarted between a read and its acknowledgement.
    local unread = #call('XRANGE', EVENTS, '(' .. group['last-delivered-id'], '+', 'COUNT', COUNTED)
    if unread == COUNTED then unread = math.min(group.lag or INF, call('XLEN', EVENTS)) end
    groups[i] = { group.name, group.pending, unread }
  end
end
return cmsgpack.pack({
  states = states, depth = hash(DEPTH), counters = hash(COUNTERS), events = call('XLEN', EVENTS), groups = groups,
  paused_groups = call('HKEYS', PAUSED),
  lanes = { ready = ready, known = call('HLEN', LANES), housed = call('HLEN', HOME) },
  oldest_ready_ms = now_ms - oldest_ms,
})
