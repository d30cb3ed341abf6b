-- Changes of the state of jobs. No other module makes them.

-- Ended jobs and released leases: collected, and removed in few calls before the same script leases any job.
local ended, released_leases = {}, {}

-- End a job. Its id stays known until its outcome is acknowledged.
function q.end_job(kind, id, lane_n, e)
  ended[#ended + 1] = id
  q.adjust_live(lane_n, -1)
  e.id = id
  local packed = q.emit(kind, e)
  if kind == 'expired' then q.log_failed(packed) end
  q.count(kind)
end

-- End the jobs that would return to a cancelled lane.
function q.end_cancelled()
  if not (next(heads) or next(tails)) or call('EXISTS', keys.cancelled_lanes) == 0 then return end
  for _, side in ipairs({ heads, tails }) do
    for n, ids in pairs(side) do
      local cause = call('HGET', keys.cancelled_lanes, n)
      if cause then
        local records = q.get_many(keys.jobs, ids)
        for i, id in ipairs(ids) do
          local attempts = q.read_record(records[i]).attempts
          q.end_job('cancelled', id, n, { token = q.this_token(), attempt = attempts, cause = cause })
        end
        side[n] = nil
      end
    end
  end
end

function q.write_moves()
  q.end_cancelled()
  q.call_many('HDEL', keys.jobs, ended)
  local remembered, at = {}, q.int(now_ms)
  for i = 1, #ended do remembered[2 * i - 1], remembered[2 * i] = ended[i], at end
  q.call_many('HSET', keys.remembered, remembered)
  q.call_many('HDEL', keys.leases, released_leases)
  q.call_many('ZREM', keys.inflight, released_leases)
  ended, released_leases = {}, {}
  q.write_pushes()
end

function q.dead_letter(id, lane, e)
  call('ZADD', keys.dead, q.int(now_ms), id)
  call('HSET', keys.letters, id, cmsgpack.pack({ lane.name, e.token, e.attempt, e.cause, e.error }))
  e.id = id
  q.log_failed(q.emit('dead', e))
  q.count('dead')
end

-- Hold a job as uncertain under the token of its lease: whether the irreversible act happened is not known.
function q.hold(id, lease, e)
  call('HSET', keys.held, id, q.pack_lease(lease))
  call('ZADD', keys.uncertain, q.int(now_ms), id)
  e.id = id
  q.emit('uncertain', e)
  q.count('uncertain')
end

-- Release the lease of a job in flight or of an uncertain one.
function q.release_lease(id, lease, refund)
  if lease.held then
    call('HDEL', keys.held, id)
    call('ZREM', keys.uncertain, id)
  else
    released_leases[#released_leases + 1] = id
    q.credit(q.lane_of(lease.lane), 1, refund and lease.token)
  end
end

-- Due jobs go to the tails of their lanes, earliest first.
function q.promote(at_most)
  local due = call('ZRANGEBYSCORE', keys.scheduled, '-inf', q.int(now_ms), 'LIMIT', 0, at_most)
  local records = q.get_many(keys.jobs, due)
  for i, id in ipairs(due) do q.push_tail(q.read_record(records[i]).lane, id) end
  q.call_many('ZREM', keys.scheduled, due)
  q.end_cancelled()
  q.write_pushes()
  return #due
end

-- A restarted server, or a promoted replica, may have lost its last writes: a mark, but not its lease. Returns the last
-- token before that. Claims call this first, so every later lease is newer.
function q.last_token_before_restart()
  -- It changes at every start, and when a replica is promoted.
  local epoch = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
  local known = call('HMGET', keys.server_epoch, 'id', 'token')
  if known[1] == epoch then return tonumber(known[2]) end
  call('HSET', keys.server_epoch, 'id', epoch, 'token', q.int(q.last_token()))
  return q.last_token()
end

-- End expired leases: a job that is marked, or whose mark may be lost, is uncertain. Any other returns to the head of
-- its lane.
function q.reap(at_most)
  local last_before_restart = q.last_token_before_restart()
  local over = call('ZRANGEBYSCORE', keys.inflight, '-inf', q.int(now_ms), 'LIMIT', 0, at_most)
  local leases, records = q.get_many(keys.leases, over), q.get_many(keys.jobs, over)
  local released, uncertain = 0, 0
  for i, id in ipairs(over) do
    local lease, job = q.read_lease(leases[i]), q.read_record(records[i])
    local e = { id = id, token = lease.token, attempt = job.attempts + 1, claim = job.closed + 1, cause = 'lease' }
    local acted = lease.marked == 1 or lease.token <= last_before_restart
    if lease.marked == 0 and acted then e.cause = 'restart' end
    q.release_lease(id, lease, not acted)
    if acted then
      q.hold(id, lease, e)
      uncertain = uncertain + 1
    else
      q.close_claim(job, lease.token)
      call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(records[i])))
      q.push_head(job.lane, id)
      q.emit('released', e)
      q.count('reaped')
      released = released + 1
    end
  end
  q.write_moves()
  return released, uncertain
end

-- Forget old ids whose outcome was not acknowledged. Each call scans some of them.
function q.forget_old(remember_ms, look_at)
  local from = call('HGET', keys.server_epoch, 'scan') or '0'
  local found = call('HSCAN', keys.remembered, from, 'COUNT', look_at)
  local old, ids = {}, found[2]
  for i = 1, #ids, 2 do
    if tonumber(ids[i + 1]) <= now_ms - remember_ms then old[#old + 1] = ids[i] end
  end
  q.call_many('HDEL', keys.remembered, old)
  if found[1] ~= from then call('HSET', keys.server_epoch, 'scan', found[1]) end
end

-- End jobs of cancelled lanes. Returns how many ended, and how many ids were processed.
function q.cancel_step(at_most)
  local n_ended, looked = 0, 0
  while looked < at_most do
    local n = call('ZRANGE', keys.drain, 0, 0)[1]
    if not n then break end
    local lane, cause = q.lane_of(tonumber(n)), call('HGET', keys.cancelled_lanes, n)
    local ids = call('LPOP', lane.list, at_most - looked) or {}
    local records = q.get_many(keys.jobs, ids)
    for i, id in ipairs(ids) do
      if records[i] then
        local attempts = q.read_record(records[i]).attempts
        q.end_job('cancelled', id, lane.n, { token = q.this_token(), attempt = attempts, cause = cause })
        n_ended = n_ended + 1
      else
        call('HDEL', keys.cancelled, id)
      end
    end
    looked = looked + #ids
    q.add_depth(lane.class, -#ids)
    if call('EXISTS', lane.list) == 0 then call('ZREM', keys.drain, n) end
  end
  return n_ended, looked
end

local LANE_IDLE_MS = 3600000

-- Forget lanes that had no job for an hour.
function q.forget_lanes(at_most)
  local idle = call('ZRANGEBYSCORE', keys.idle, '-inf', q.int(now_ms - LANE_IDLE_MS), 'LIMIT', 0, at_most)
  for _, n in ipairs(idle) do
    local lane, definition = q.lane_of(tonumber(n)), call('HGET', keys.lanes, n)
    if call('EXISTS', lane.list) == 1 then
      -- It lists only cancelled ids, which a gate or a pause keeps from claims.
      call('ZADD', keys.idle, q.int(now_ms), n)
    else
      if call('HGET', keys.lane_ids, definition) == n then call('HDEL', keys.lane_ids, definition) end
      for _, key in ipairs({ keys.lanes, keys.tags, keys.live, keys.cancelled_lanes }) do call('HDEL', key, n) end
      if lane.group ~= '' then call('ZREM', q.group_key(lane.group), n) end
      call('ZREM', keys.idle, n)
    end
  end
end

-- Detect that the server's clock stepped back. Leases would end and gates would open later by as much.
function q.notice_clock()
  local behind_ms = q.clock_of('seen') - now_ms
  q.set_clock('seen', now_ms)
  if behind_ms <= 0 then
    if call('HEXISTS', keys.server_epoch, 'clamp') == 1 then q.clamp_gates(500) end
    return
  end
  call('HDEL', keys.server_epoch, 'clamp')
  q.clamp_gates(500)
  -- Leases of live workers are renewed anyway.
  local flying, moved = call('ZREVRANGE', keys.inflight, 0, 9999, 'WITHSCORES'), {}
  for i = 1, #flying, 2 do moved[i], moved[i + 1] = q.int(tonumber(flying[i + 1]) - behind_ms), flying[i] end
  q.call_many('ZADD', keys.inflight, moved)
  q.count('clock_steps_back')
  q.count('clock_stepped_back_ms', behind_ms)
end

local SWEEP_MS = 1000

-- Maintenance that is not needed in every claim.
function q.sweep(remember_ms)
  local since_ms = now_ms - q.clock_of('swept')
  if since_ms >= 0 and since_ms < SWEEP_MS then return end
  q.set_clock('swept', now_ms)
  q.notice_clock()
  q.forget_old(remember_ms, 500)
  q.cancel_step(1000)
  q.forget_lanes(100)
  if call('EXISTS', keys.resuming) == 1 then q.resume_some(call('HRANDFIELD', keys.resuming), 100) end
end

function q.finish()
  q.write_moves()
  q.write_live()
  q.write_events()
  q.write_failed()
  q.write_gates()
  q.write_clocks()
  q.write_base()
end
