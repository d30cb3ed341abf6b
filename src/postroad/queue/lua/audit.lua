-- Check the invariants of the queue. Read-only, and slow: it reads everything.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- returns  what is wrong, a sentence each; empty when all is well
-- cost     O(n)

local wrong = {}
local function check(ok, format, ...)
  if not ok and #wrong < 100 then wrong[#wrong + 1] = string.format(format, ...) end
end
local function keys_of(key) return call('HKEYS', key) end
local function members(key) return call('ZRANGE', key, 0, -1) end
local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

-- 1. Every live id is in exactly one place.
local place = {}
local function put(id, where)
  check(not place[id], 'job %s is both %s and %s', id, tostring(place[id]), where)
  place[id] = where
end
local cancelled = set_of(keys_of(keys.cancelled))
local tombs, queued, depths = 0, 0, {}
for _, n in ipairs(keys_of(keys.lanes)) do
  local lane = q.lane_of(tonumber(n))
  local ids = call('LRANGE', lane.list, 0, -1)
  depths[lane.class] = (depths[lane.class] or 0) + #ids
  for _, id in ipairs(ids) do
    if cancelled[id] then
      tombs = tombs + 1
    else
      put(id, 'queued')
      queued = queued + 1
    end
  end
  -- 2. A lane that is not empty is in exactly one of ready or parked, unless its group is paused or was cancelled.
  local home = call('HGET', keys.home, n)
  local doomed = call('HEXISTS', keys.doomed, n) == 1
  local held_back = doomed or (lane.group ~= '' and call('HEXISTS', keys.paused, lane.group) == 1)
  check((#ids > 0 and not held_back) == (home and true or false), 'lane %s holds %d ids%s and its home is %s', n, #ids,
    held_back and ' back' or '', tostring(home))
  check((doomed and #ids > 0) == (call('ZSCORE', keys.drain, n) and true or false), 'lane %s holds %d ids and drains wrongly', n, #ids)
  check(doomed or lane.group == '' or call('ZSCORE', q.group_key(lane.group), n), 'lane %s is not in its group', n)
  local numbered = call('HGET', keys.lane_ids, call('HGET', keys.lanes, n))
  check(doomed and numbered ~= n or numbered == n, 'lane %s is cancelled and takes jobs, or is not and takes none', n)
  if home then
    local key = base .. (home == 'r' and 'ready:' or 'parked:' .. string.sub(home, 2) .. ':') .. lane.class
    check(call('ZSCORE', key, n), 'lane %s is not where its home says: %s', n, home)
  end
end
check(tombs == #keys_of(keys.cancelled), '%d cancelled ids stand in lanes, %d are marked', tombs, #keys_of(keys.cancelled))
for _, id in ipairs(members(keys.scheduled)) do put(id, 'scheduled') end
for _, id in ipairs(keys_of(keys.leases)) do put(id, 'in flight') end
for _, id in ipairs(members(keys.uncertain)) do put(id, 'uncertain') end
for _, id in ipairs(members(keys.dead)) do put(id, 'dead') end
local jobs = set_of(keys_of(keys.jobs))
local live = {}
for id in pairs(jobs) do
  local n = q.read_record(call('HGET', keys.jobs, id)).lane
  live[n] = (live[n] or 0) + 1
  check(place[id], 'job %s is nowhere', id)
  check(call('HEXISTS', keys.remembered, id) == 0, 'job %s lives and is remembered as ended', id)
end
for _, n in ipairs(keys_of(keys.lanes)) do
  local counted, found = tonumber(call('HGET', keys.live, n) or 0), live[tonumber(n)] or 0
  check(counted == found, 'lane %s counts %d live jobs, there are %d', n, counted, found)
  check((found == 0) == (call('ZSCORE', keys.idle, n) and true or false), 'lane %s has %d live jobs and is idle wrongly', n, found)
end
for id, where in pairs(place) do check(jobs[id], 'job %s is %s and has no record', id, where) end
for _, class in ipairs(CLASSES) do
  local depth = tonumber(call('HGET', keys.depth, class) or 0)
  check(depth == (depths[class] or 0), 'class %s counts %d ids in lanes and holds %d', class, depth, depths[class] or 0)
end

-- 2. Ready and parked lanes know it, and a gate with parked lanes is in `wake`, and only such.
local housed = 0
local function housed_in(key, home)
  for _, n in ipairs(members(key)) do
    housed = housed + 1
    check(call('HGET', keys.home, n) == home, 'lane %s is in %s and its home is %s', n, key, tostring(call('HGET', keys.home, n)))
  end
end
for _, class in ipairs(CLASSES) do housed_in(base .. 'ready:' .. class, 'r') end
local in_flight = {}
for _, name in ipairs(call('SMEMBERS', keys.gates)) do
  local parked = 0
  for _, class in ipairs(CLASSES) do
    local key = q.parked_key({ name = name }, class)
    parked = parked + call('ZCARD', key)
    housed_in(key, 'p' .. name)
  end
  local wake = call('ZSCORE', keys.wake, name)
  check((parked > 0) == (wake and true or false), 'gate %s has %d lanes parked, wake says %s', name, parked, tostring(wake))
  in_flight[name] = 0
end
check(housed == call('HLEN', keys.home), '%d lanes are ready or parked, %d have a home', housed, call('HLEN', keys.home))

-- 3. In flight = leased, uncertain = held; tokens only increase.
local function same(hash, zset, what)
  local leases = call('HGETALL', hash)
  for i = 1, #leases, 2 do
    local lease = q.read_lease(leases[i + 1])
    check(call('ZSCORE', zset, leases[i]), 'job %s has a lease and is not %s', leases[i], what)
    check(lease.token <= q.last_token(), 'token of job %s is newer than the last one given', leases[i])
    if hash == keys.leases then
      for _, name in ipairs(q.lane_of(lease.lane).gates) do in_flight[name] = (in_flight[name] or 0) + 1 end
    end
  end
  check(#leases == 2 * call('ZCARD', zset), '%d jobs have leases, %d are %s', #leases / 2, call('ZCARD', zset), what)
end
same(keys.leases, keys.inflight, 'in flight')
same(keys.held, keys.uncertain, 'uncertain')
for _, id in ipairs(members(keys.dead)) do check(call('HEXISTS', keys.letters, id) == 1, 'dead job %s has no letter', id) end

-- 4. What a gate counts in flight is what is in flight.
for name, n in pairs(in_flight) do
  check(q.gate_of(name).in_flight == n, 'gate %s counts %d in flight, there are %d', name, q.gate_of(name).in_flight, n)
end

-- 5. Whatever was enqueued is still here, or ended, and counted once.
local counters = call('HGETALL', keys.counters)
local counted = {}
for i = 1, #counters, 2 do counted[counters[i]] = tonumber(counters[i + 1]) end
local ended = 0
for _, kind in ipairs({ 'done', 'cancelled', 'expired', 'dropped' }) do ended = ended + (counted[kind] or 0) end
check((counted.enqueued or 0) == ended + call('HLEN', keys.jobs), '%d were enqueued; %d ended and %d live',
  counted.enqueued or 0, ended, call('HLEN', keys.jobs))

-- 6. Virtual time never goes back.
for _, class in ipairs(CLASSES) do
  local first = call('ZRANGE', base .. 'ready:' .. class, 0, 0, 'WITHSCORES')
  local clock = q.clock_of('lanes:' .. class)
  check(not first[2] or tonumber(first[2]) >= clock - 1e-6, 'lane %s of class %s is behind the clock of its class',
    tostring(first[1]), class)
end
return wrong
