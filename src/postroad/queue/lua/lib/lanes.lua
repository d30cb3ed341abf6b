-- Lanes: a lane is identified by its definition [name, class, weight, gates, group], and stored by number.

local lane_cache = {}
local touched_gates = {}  -- gates that lost a parked lane; write_gates updates them
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

-- Make a lane ready at `tag`, but not before the clock of its class: an absent lane accumulates no credit.
function q.make_ready(lane, tag)
  call('ZADD', base .. 'ready:' .. lane.class, q.real(math.max(tag, q.clock_of('lanes:' .. lane.class))), lane.n)
  call('HSET', keys.lane_state, lane.n, 'r')
end

function q.set_lane_state(lane)
  if call('HEXISTS', keys.lane_state, lane.n) == 1 then return end
  if lane.group ~= '' and call('HEXISTS', keys.paused, lane.group) == 1 then return end
  q.make_ready(lane, tonumber(call('HGET', keys.tags, lane.n) or 0))
  call('HDEL', keys.tags, lane.n)
end

-- A lane that is empty, paused or cancelled has no state. Its tag is stored until it is ready again.
function q.clear_lane_state(lane)
  local state = call('HGET', keys.lane_state, lane.n)
  if not state then return end
  local key = base .. 'ready:' .. lane.class
  if state ~= 'r' then key = base .. 'parked:' .. string.sub(state, 2) .. ':' .. lane.class end
  call('HSET', keys.tags, lane.n, call('ZSCORE', key, lane.n))
  call('ZREM', key, lane.n)
  call('HDEL', keys.lane_state, lane.n)
  if state ~= 'r' then touched_gates[#touched_gates + 1] = string.sub(state, 2) end
end

-- Make the lanes of a resumed group ready, in order of their numbers. Returns whether more are left.
function q.resume_some(group, at_most)
  local after = call('HGET', keys.resuming, group)
  local lanes = after and call('ZRANGEBYSCORE', q.group_key(group), '(' .. after, '+inf', 'LIMIT', 0, at_most) or {}
  for _, n in ipairs(lanes) do
    local lane = q.lane_of(tonumber(n))
    if call('EXISTS', lane.list) == 1 then q.set_lane_state(lane) end
  end
  if #lanes == at_most then
    call('HSET', keys.resuming, group, lanes[#lanes])
    return true
  end
  call('HDEL', keys.resuming, group)
  return false
end

-- Number of live jobs of each lane. A lane without any is deleted after an hour.
local live_changes = {}
function q.adjust_live(n, by) live_changes[n] = (live_changes[n] or 0) + by end
function q.write_live()
  for n, by in pairs(live_changes) do
    if by ~= 0 then
      local live = call('HINCRBY', keys.live, n, by)
      if live == 0 then
        call('ZADD', keys.idle, q.int(now_ms), n)
      elseif live == by then
        call('ZREM', keys.idle, n)
      end
    end
  end
  live_changes = {}
end

-- Ids to push to lanes: collected, then pushed lane by lane.
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
    q.add_depth(lane.class, #ids)
    q.set_lane_state(lane)
  end
  for n, ids in pairs(heads) do
    local lane = q.lane_of(n)
    for i = #ids, 1, -1 do call('LPUSH', lane.list, ids[i]) end
    q.add_depth(lane.class, #ids)
    q.set_lane_state(lane)
  end
  heads, tails = {}, {}
end
