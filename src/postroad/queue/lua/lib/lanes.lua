-- Lanes: a lane is its definition [name, class, weight, gates, group], known inside by a number.

local lane_cache = {}
local stirred = {}  -- gates that lost a parked lane; write_gates looks after them
local function lane_of(n)
  local lane = lane_cache[n]
  if not lane then
    local d = cmsgpack.unpack(call('HGET', LANES, n))
    lane = {
      n = n, name = d[1], class = d[2], weight = d[3], gates = d[4], group = d[5], list = base .. 'lane:' .. n,
    }
    lane_cache[n] = lane
  end
  return lane
end

local function group_key(group) return base .. 'group:' .. group end

local function lane_by_definition(definition)
  local n = call('HGET', LANE_IDS, definition)
  if not n then
    n = call('INCR', LANE_N)
    call('HSET', LANE_IDS, definition, n)
    call('HSET', LANES, n, definition)
    call('ZADD', IDLE, int(now_ms), n)
    local lane = lane_of(n)
    if #lane.gates > 0 then call('SADD', GATES, unpack(lane.gates)) end
    if lane.group ~= '' then call('ZADD', group_key(lane.group), n, n) end
  end
  return lane_of(tonumber(n))
end

-- Virtual clocks (start-time fair queueing): of the classes against each other, and of the lanes in each class.
local clocks, clocks_moved
local function clock_of(field)
  if not clocks then
    clocks = {}
    local all = call('HGETALL', VTIME)
    for i = 1, #all, 2 do clocks[all[i]] = tonumber(all[i + 1]) end
  end
  return clocks[field] or 0
end
local function set_clock(field, value)
  clock_of(field)
  clocks[field] = value
  clocks_moved = clocks_moved or {}
  clocks_moved[field] = true
end
local function write_clocks()
  if not clocks_moved then return end
  local moved = {}
  for field in pairs(clocks_moved) do moved[#moved + 1], moved[#moved + 2] = field, real(clocks[field]) end
  call('HSET', VTIME, unpack(moved))
  clocks_moved = nil
end

-- Ready at `tag`, but not before its class's clock: a lane that was away saves up no credit.
local function make_ready(lane, tag)
  call('ZADD', base .. 'ready:' .. lane.class, real(math.max(tag, clock_of('lanes:' .. lane.class))), lane.n)
  call('HSET', HOME, lane.n, 'r')
end

local function house(lane)
  if call('HEXISTS', HOME, lane.n) == 1 then return end
  if lane.group ~= '' and call('HEXISTS', PAUSED, lane.group) == 1 then return end
  make_ready(lane, tonumber(call('HGET', TAGS, lane.n) or 0))
  call('HDEL', TAGS, lane.n)
end

-- A lane that is empty, paused or cancelled has no home; its tag waits for it.
local function evict(lane)
  local home = call('HGET', HOME, lane.n)
  if not home then return end
  local key = base .. 'ready:' .. lane.class
  if home ~= 'r' then key = base .. 'parked:' .. string.sub(home, 2) .. ':' .. lane.class end
  call('HSET', TAGS, lane.n, call('ZSCORE', key, lane.n))
  call('ZREM', key, lane.n)
  call('HDEL', HOME, lane.n)
  if home ~= 'r' then stirred[#stirred + 1] = string.sub(home, 2) end
end

-- How many jobs of each lane have not ended: a lane without any is forgotten after a while.
local ties = {}
local function tie(n, by) ties[n] = (ties[n] or 0) + by end
local function write_ties()
  for n, by in pairs(ties) do
    if by ~= 0 then
      local live = call('HINCRBY', LIVE, n, by)
      if live == 0 then
        call('ZADD', IDLE, int(now_ms), n)
      elseif live == by then
        call('ZREM', IDLE, n)
      end
    end
  end
  ties = {}
end

-- Ids on their way into lanes: collected, then pushed lane by lane.
local heads, tails = {}, {}
local function push(side, n, id)
  local ids = side[n]
  if not ids then
    ids = {}
    side[n] = ids
  end
  ids[#ids + 1] = id
end
local function push_tail(n, id) push(tails, n, id) end
local function push_head(n, id) push(heads, n, id) end

local function write_pushes()
  for n, ids in pairs(tails) do
    local lane = lane_of(n)
    call_many('RPUSH', lane.list, ids)
    deepen(lane.class, #ids)
    house(lane)
  end
  for n, ids in pairs(heads) do
    local lane = lane_of(n)
    for i = #ids, 1, -1 do call('LPUSH', lane.list, ids[i]) end
    deepen(lane.class, #ids)
    house(lane)
  end
  heads, tails = {}, {}
end
