-- Return counts by state, and counters since the queue was created. Read-only.
-- uses     base lanes events
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- returns  msgpack {states, depth, lanes, counters, oldest_ready_ms, events, groups, server}
-- cost     O(L) of ready lanes, at most 200 per class

local function hash(key)
  local all, out = call('HGETALL', key), {}
  for i = 1, #all, 2 do out[all[i]] = tonumber(all[i + 1]) end
  return out
end

local states = {
  scheduled = call('ZCARD', keys.scheduled), in_flight = call('HLEN', keys.leases), uncertain = call('ZCARD', keys.uncertain),
  dead = call('ZCARD', keys.dead), remembered = call('HLEN', keys.remembered),
}
states.queued = call('HLEN', keys.jobs) - states.scheduled - states.in_flight - states.uncertain - states.dead

local oldest_ms, ready = now_ms, 0
for _, class in ipairs(CLASSES) do
  local key = base .. 'ready:' .. class
  ready = ready + call('ZCARD', key)
  for _, n in ipairs(call('ZRANGE', key, 0, 199)) do
    local id = call('LINDEX', base .. 'lane:' .. n, 0)
    local record = id and call('HGET', keys.jobs, id)
    if record then oldest_ms = math.min(oldest_ms, q.read_record(record).since_ms) end
  end
end

local groups = {}
if call('EXISTS', keys.events) == 1 then
  for i, info in ipairs(call('XINFO', 'GROUPS', keys.events)) do
    local group = {}
    for j = 1, #info, 2 do group[info[j]] = info[j + 1] end
    -- A group begins at 0-0; trimmed entries do not count as unread.
    local read = math.max(q.counts_of(group['last-delivered-id']), q.clock_of('trimmed'))
    local pending = 0
    if group.pending > 0 then
      local first, n = q.counts_of(call('XPENDING', keys.events, group.name)[2])
      pending = read - (first - n)
    end
    groups[i] = { group.name, pending, q.clock_of('events') - read }
  end
end

-- A hosted server may hide a value: then the number is 0.
local info = call('INFO', 'memory', 'persistence')
local function bytes(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)')) or 0 end

return cmsgpack.pack({
  states = states, depth = hash(keys.depth), counters = hash(keys.counters), events = q.events_waiting(), groups = groups,
  paused_groups = call('HKEYS', keys.paused),
  lanes = { ready = ready, known = call('HLEN', keys.lanes), placed = call('HLEN', keys.lane_state) },
  oldest_ready_ms = now_ms - oldest_ms,
  server = {
    memory_used_bytes = bytes('used_memory'),
    memory_limit_bytes = bytes('maxmemory') > 0 and bytes('maxmemory') or bytes('total_system_memory'),
    persists = not string.find(info, '_status:err'),
  },
})
