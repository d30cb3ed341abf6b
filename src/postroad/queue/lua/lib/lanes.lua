-- Lanes: a lane is its definition [name, class, weight, gates, group], known inside by a number.

local lane_cache = {}
local stirred = {}  -- gates that lost a parked lane; write_gates looks after them
function q.lane_of(n)
  local lane = lane_cache[n]
  if not lane then
    local d = cmsgpack.unpack(call('HGET', keys.lanes, n))
    lane = {
      n = n, name = d[1], class = d[2], weight = d[3], gates = d[4], group = d[5], list = base .. 'lane:' .. n,
    }
    lane_cache[n] = lane
  end
  return lane
end

function q.group_key(group) return base .. 'group:' .. group end

function q.lane_by_definition(definition)
  local n = call('HGET', keys.lane_ids, definition)
  if not n then
    n = call('INCR', keys.lane_n)
    call('HSET', keys.lane_ids, definition, n)
    call('HSET', keys.lanes, n, definition)
    call('ZADD', keys.idle, q.int(now_ms), n)
    local lane = q.lane_of(n)
    if #lane.gates > 0 then call('SADD', keys.gates, unpack(lane.gates)) end
    if lane.group ~= '' then call('ZADD', q.group_key(lane.group), n, n) end
  end
  return q.lane_of(tonumber(n))
end

-- Virtual clocks (start-time fair queueing): of the classes against each other, and of the lanes in each class.
local clocks, clocks_moved
function q.clock_of(field)
  if not clocks then
    clocks = {}
    local all = call('HGETALL', keys.vtime)
    for i = 1, #all, 2 do clocks[all[i]] = tonumber(all[i + 1]) end
  end
  return clocks[field] or 0
end
function q.set_clock(field, value)
  q.clock_of(field)
  clocks[field] = value
  clocks_moved = clocks_moved or {}
  clocks_moved[field] = true
end
function q.write_clocks()
  if not clocks_moved then return end
  local moved = {}
  for field in pairs(clocks_moved) do moved[#moved + 1], moved[#moved + 2] = field, q.real(clocks[field]) end
  call('HSET', keys.vtime, unpack(moved))
  clocks_moved = nil
end

-- Ready at `tag`, but not before its class's clock: a lane that was away saves up no credit.
function q.make_ready(lane, tag)
  call('ZADD', base .. 'ready:' .. lane.class, q.real(math.max(tag, q.clock_of('lanes:' .. lane.class))), lane.n)
  call('HSET', keys.home, lane.n, 'r')
end

function q.house(lane)
  if call('HEXISTS', keys.home, lane.n) == 1 then return end
  if lane.group ~= '' and call('HEXISTS', keys.paused, lane.group) == 1 then return end
  q.make_ready(lane, tonumber(call('HGET', keys.tags, lane.n) or 0))
  call('HDEL', keys.tags, lane.n)
end

-- A lane that is empty, paused or cancelled has no home; its tag waits for it.
function q.evict(lane)
  local home = call('HGET', keys.home, lane.n)
  if not home then return end
  local key = base .. 'ready:' .. lane.class
  if home ~= 'r' then key = base .. 'parked:' .. string.sub(home, 2) .. ':' .. lane.class end
  call('HSET', keys.tags, lane.n, call('ZSCORE', key, lane.n))
  call('ZREM', key, lane.n)
  call('HDEL', keys.home, lane.n)
  if home ~= 'r' then stirred[#stirred + 1] = string.sub(home, 2) end
end

-- Lanes of a group that is no longer paused find their homes again, in order of their numbers. Returns whether more are left.
function q.resume_some(group, at_most)
  local after = call('HGET', keys.resuming, group)
  local lanes = after and call('ZRANGEBYSCORE', q.group_key(group), '(' .. after, '+inf', 'LIMIT', 0, at_most) or {}
  for _, n in ipairs(lanes) do
    local lane = q.lane_of(tonumber(n))
    if call('EXISTS', lane.list) == 1 then q.house(lane) end
  end
  if #lanes == at_most then
    call('HSET', keys.resuming, group, lanes[#lanes])
    return true
  end
  call('HDEL', keys.resuming, group)
  return false
end

-- How many jobs of each lane have not ended: a lane without any is forgotten after a while.
local ties = {}
function q.tie(n, by) ties[n] = (ties[n] or 0) + by end
function q.write_ties()
  for n, by in pairs(ties) do
    if by ~= 0 then
      local live = call('HINCRBY', keys.live, n, by)
      if live == 0 then
        call('ZADD', keys.idle, q.int(now_ms), n)
      elseif live == by then
        call('ZREM', keys.idle, n)
      end
    end
  end
  ties = {}
end

-- Ids on their way into lanes: collected, then pushed lane by lane.
local heads, tails = {}, {}
function q.push(side, n, id)
  local ids = side[n]
  if not ids then
    ids = {}
    side[n] = ids
  end
  ids[#ids + 1] = id
end
function q.push_tail(n, id) q.push(tails, n, id) end
function q.push_head(n, id) q.push(heads, n, id) end

function q.write_pushes()
  for n, ids in pairs(tails) do
    local lane = q.lane_of(n)
    q.call_many('RPUSH', lane.list, ids)
    q.deepen(lane.class, #ids)
    q.house(lane)
  end
  for n, ids in pairs(heads) do
    local lane = q.lane_of(n)
    for i = #ids, 1, -1 do call('LPUSH', lane.list, ids[i]) end
    q.deepen(lane.class, #ids)
    q.house(lane)
  end
  heads, tails = {}, {}
end
