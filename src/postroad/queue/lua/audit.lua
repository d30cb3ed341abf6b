-- Check one part of the invariants, in steps. Read-only. `postroad.queue.audit` combines the parts.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  part    one of those below
-- ARGV[3]  subject what the part looks at, such as the number of a lane; often empty
-- ARGV[4]  cursor  where this step begins, 0 at first
-- ARGV[5]  limit   items to look at
-- returns  msgpack [next cursor or 0 at the end, [[what is wrong, in one word and its subject; the same in words], ...], what was seen]
-- cost     O(limit log n)

local part, subject, cursor, limit = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local wrong, seen = {}, {}
local function check(ok, code, format, ...)
  if not ok and #wrong < 100 then wrong[#wrong + 1] = { code, string.format(format, ...) } end
end

-- Where a job is, except in a lane. It may be in one place only.
local function place_of(id)
  local place
  local function put(where)
    check(not place, 'twice ' .. id, 'job %s is both %s and %s', id, tostring(place), where)
    place = where
  end
  if call('ZSCORE', keys.scheduled, id) then put('scheduled') end
  if call('HEXISTS', keys.leases, id) == 1 then put('in flight') end
  if call('ZSCORE', keys.uncertain, id) then put('uncertain') end
  if call('ZSCORE', keys.dead, id) then put('dead') end
  return place
end

-- How often a job left its lane without an end. The number changes when the job returns.
local function closed_of(record) return (struct.unpack('<I4', record, 9)) end

local parts = {}

-- Changes with every move. If it is equal before and after a read, the read is consistent.
function parts.stamp()
  local depth, cancelled = call('HGETALL', keys.depth), call('HLEN', keys.cancelled)
  seen = { call('HGETALL', keys.counters), depth, call('GET', keys.token) or '', cancelled }
  return 0
end

-- Jobs: [id, lane, closed claims, 1 if it must be in its lane], ...
function parts.jobs()
  local found = call('HSCAN', keys.jobs, cursor, 'COUNT', limit)
  for i = 1, #found[2], 2 do
    local id, record = found[2][i], found[2][i + 1]
    check(call('HEXISTS', keys.remembered, id) == 0, 'remembered ' .. id, 'job %s lives and is remembered as ended', id)
    seen[#seen + 1] = { id, q.read_record(record).lane, closed_of(record), place_of(id) and 0 or 1 }
  end
  return found[1]
end

-- Of the ids in `subject`, msgpack, those that must be in their lanes: [id, closed claims], ...
function parts.again()
  for _, id in ipairs(cmsgpack.unpack(subject)) do
    local record = call('HGET', keys.jobs, id)
    if record and not place_of(id) then seen[#seen + 1] = { id, closed_of(record) } end
  end
  return 0
end

-- Lanes: [number, length of its list, live jobs that it counts, 1 if it is idle], ...
function parts.lanes()
  local found = call('HSCAN', keys.lanes, cursor, 'COUNT', limit)
  for i = 1, #found[2], 2 do
    local n = found[2][i]
    local lane, length = q.lane_of(tonumber(n)), call('LLEN', base .. 'lane:' .. n)
    -- A lane that is not empty is in exactly one of ready or parked, unless its group is paused or was cancelled.
    local state, cancelled = call('HGET', keys.lane_state, n), call('HEXISTS', keys.cancelled_lanes, n) == 1
    local held_back = cancelled or (lane.group ~= '' and call('HEXISTS', keys.paused, lane.group) == 1)
    local resuming = lane.group ~= '' and call('HEXISTS', keys.resuming, lane.group) == 1
    check((length > 0 and not held_back) == (state and true or false) or (resuming and not state), 'home ' .. n, 'lane %s holds %d ids%s and its state is %s',
      n, length, held_back and ' back' or '', tostring(state))
    check((cancelled and length > 0) == (call('ZSCORE', keys.drain, n) and true or false), 'drain ' .. n,
      'lane %s holds %d ids and drains wrongly', n, length)
    check(cancelled or lane.group == '' or call('ZSCORE', q.group_key(lane.group), n), 'group ' .. n, 'lane %s is not in its group', n)
    local numbered = call('HGET', keys.lane_ids, found[2][i + 1])
    check(cancelled and numbered ~= n or numbered == n, 'number ' .. n, 'lane %s is cancelled and takes jobs, or is not and takes none', n)
    if state then
      local key = base .. (state == 'r' and 'ready:' or 'parked:' .. string.sub(state, 2) .. ':') .. lane.class
      check(call('ZSCORE', key, n), 'place ' .. n, 'lane %s is not where its state says: %s', n, state)
    end
    local live, idle = tonumber(call('HGET', keys.live, n) or 0), call('ZSCORE', keys.idle, n)
    seen[#seen + 1] = { tonumber(n), length, live, idle and 1 or 0 }
  end
  return found[1]
end

-- The list of the lane `subject`, from its tail: ids are added there, so that none moves to where this has been.
-- [id, closed claims], ... and then how many of the ids were cancelled.
function parts.list()
  local from, tombs = tonumber(cursor), 0
  local ids = call('LRANGE', base .. 'lane:' .. subject, -from - limit, -from - 1)
  local records, cancelled = q.get_many(keys.jobs, ids), q.get_many(keys.cancelled, ids)
  for i, id in ipairs(ids) do
    if cancelled[i] then
      tombs = tombs + 1
    else
      local place = place_of(id)
      check(not place, 'twice ' .. id, 'job %s is both queued and %s', id, tostring(place))
      check(records[i], 'record ' .. id, 'job %s is queued and has no record', id)
      seen[#seen + 1] = { id, records[i] and closed_of(records[i]) or 0 }
    end
  end
  seen = { seen, tombs }
  return #ids < limit and 0 or from + #ids
end

-- Jobs in flight, held, scheduled, uncertain and dead have records, and what else belongs to them.
local function scan(command, key, look)
  local found = call(command, key, cursor, 'COUNT', limit)
  for i = 1, #found[2], 2 do look(found[2][i], found[2][i + 1]) end
  return found[1]
end
local function has_record(id, where)
  check(call('HEXISTS', keys.jobs, id) == 1, 'record ' .. id, 'job %s is %s and has no record', id, where)
end
local function has_lease(id, packed, zset, what)
  check(call('ZSCORE', zset, id), what .. ' ' .. id, 'job %s has a lease and is not %s', id, what)
  check(q.read_lease(packed).token <= q.last_token(), 'token ' .. id, 'token of job %s is newer than the last one given', id)
end
function parts.leases()
  return scan('HSCAN', keys.leases, function(id, packed)
    has_record(id, 'in flight')
    has_lease(id, packed, keys.inflight, 'in flight')
  end)
end
function parts.held()
  return scan('HSCAN', keys.held, function(id, packed) has_lease(id, packed, keys.uncertain, 'uncertain') end)
end
function parts.scheduled() return scan('ZSCAN', keys.scheduled, function(id) has_record(id, 'scheduled') end) end
function parts.uncertain() return scan('ZSCAN', keys.uncertain, function(id) has_record(id, 'uncertain') end) end
function parts.dead()
  return scan('ZSCAN', keys.dead, function(id)
    has_record(id, 'dead')
    check(call('HEXISTS', keys.letters, id) == 1, 'letter ' .. id, 'dead job %s has no letter', id)
  end)
end

-- A gate with parked lanes is in `wake`, and only such. Sees the gates that have some.
function parts.gates()
  local found = call('SSCAN', keys.gates, cursor, 'COUNT', limit)
  for _, name in ipairs(found[2]) do
    local parked = 0
    for _, class in ipairs(CLASSES) do parked = parked + call('ZCARD', q.parked_key({ name = name }, class)) end
    local wake = call('ZSCORE', keys.wake, name)
    check((parked > 0) == (wake and true or false), 'wake ' .. name, 'gate %s has %d lanes parked, wake says %s', name, parked, tostring(wake))
    if parked > 0 then seen[#seen + 1] = name end
  end
  return found[1]
end

-- Lanes that are ready or parked know it. `subject`: `ready:` or `parked:` and a gate, and a class.
function parts.lane_states()
  local gate = string.match(subject, '^parked:(.*):%a+$')
  local state = gate and 'p' .. gate or 'r'
  return scan('ZSCAN', base .. subject, function(n)
    local known = call('HGET', keys.lane_state, n)
    check(known == state, 'place ' .. n, 'lane %s is in %s and its state is %s', n, subject, tostring(known))
  end)
end

-- Sums that have to be of one moment. Left out where that takes too long: more lanes, gates and leases than the limit.
function parts.sums()
  local function same_size(hash, zset, what)
    local leases, size = call('HLEN', hash), call('ZCARD', zset)
    check(leases == size, what .. ' size', '%d jobs have leases, %d are %s', leases, size, what)
  end
  same_size(keys.leases, keys.inflight, 'in flight')
  same_size(keys.held, keys.uncertain, 'uncertain')

  -- Whatever was enqueued is still here, or ended, and counted once.
  local ended = 0
  for _, kind in ipairs({ 'done', 'cancelled', 'expired', 'dropped' }) do
    ended = ended + tonumber(call('HGET', keys.counters, kind) or 0)
  end
  local enqueued, live = tonumber(call('HGET', keys.counters, 'enqueued') or 0), call('HLEN', keys.jobs)
  check(enqueued == ended + live, 'enqueued', '%d were enqueued; %d ended and %d live', enqueued, ended, live)

  -- Virtual time never goes back.
  for _, class in ipairs(CLASSES) do
    local first = call('ZRANGE', base .. 'ready:' .. class, 0, 0, 'WITHSCORES')
    local clock = q.clock_of('lanes:' .. class)
    check(not first[2] or tonumber(first[2]) >= clock - 1e-6, 'clock ' .. class, 'lane %s of class %s is behind the clock of its class',
      tostring(first[1]), class)
  end

  if call('HLEN', keys.lanes) + call('SCARD', keys.gates) + call('HLEN', keys.leases) > limit then return 0 end
  local depths, placed, in_flight = {}, 0, {}
  for _, n in ipairs(call('HKEYS', keys.lanes)) do
    local lane = q.lane_of(tonumber(n))
    depths[lane.class] = (depths[lane.class] or 0) + call('LLEN', lane.list)
  end
  for _, class in ipairs(CLASSES) do
    local depth = tonumber(call('HGET', keys.depth, class) or 0)
    check(depth == (depths[class] or 0), 'depth ' .. class, 'class %s counts %d ids in lanes and holds %d', class, depth, depths[class] or 0)
    placed = placed + call('ZCARD', base .. 'ready:' .. class)
  end
  for _, packed in ipairs(call('HVALS', keys.leases)) do
    for _, name in ipairs(q.lane_of(q.read_lease(packed).lane).gates) do in_flight[name] = (in_flight[name] or 0) + 1 end
  end
  for _, name in ipairs(call('SMEMBERS', keys.gates)) do
    for _, class in ipairs(CLASSES) do placed = placed + call('ZCARD', q.parked_key({ name = name }, class)) end
    local counted, n = q.gate_of(name).in_flight, in_flight[name] or 0
    check(counted == n, 'gate ' .. name, 'gate %s counts %d in flight, there are %d', name, counted, n)
  end
  local state = call('HLEN', keys.lane_state)
  check(placed == state, 'homes', '%d lanes are ready or parked, %d have a state', placed, state)
  return 0
end

local following = parts[part]()
return cmsgpack.pack({ tonumber(following) == 0 and '0' or tostring(following), wrong, seen })
