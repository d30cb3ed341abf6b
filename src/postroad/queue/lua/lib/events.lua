-- Events: what happened to jobs. All of one script are one entry of the stream, whose id is the number of events so far,
-- a dash, and the number of those in it. The fields of an entry:
--   a  now, ms
--   d  events of completed jobs, as the worker packed them: [[id, token, attempt, claim, note], ...]
--   s  msgpack [index, ...] of those whose lease was lost
--   e  msgpack of all others: [[kind, id, token, at_ms, attempt, claim, next_ms, cause, error, octets of its note], ...]
--   n  their notes, concatenated

local emitted, notes = {}, {}
local done_block, done_n, done_stale = '', 0, {}

-- Emit one event. Returns it packed.
function q.emit(kind, e)
  local note = e.note or ''
  local packed = cmsgpack.pack({
    kind, e.id, e.token, now_ms, e.attempt or 0, e.claim or 0, e.next_ms or 0, e.cause or '', e.error or '', #note,
  })
  emitted[#emitted + 1], notes[#notes + 1] = packed, note
  return packed
end

-- Emit the events of completed jobs. `stale`: indexes in the block, from 0, of those whose lease was lost.
function q.emit_done(block, n, stale)
  done_block, done_n, done_stale = block, n, stale
end

function q.array_of(packed)
  return struct.pack('>BI4', 0xdd, #packed) .. table.concat(packed)
end

function q.write_events()
  local n = #emitted + done_n
  if n == 0 then return end
  local total = q.clock_of('events') + n
  q.set_clock('events', total)
  local entry = { 'a', q.int(now_ms) }
  local function add(field, value) entry[#entry + 1], entry[#entry + 2] = field, value end
  if done_n > 0 then add('d', done_block) end
  if #done_stale > 0 then add('s', cmsgpack.pack(done_stale)) end
  if #emitted > 0 then
    add('e', q.array_of(emitted))
    add('n', table.concat(notes))
  end
  call('XADD', keys.events, q.int(total) .. '-' .. n, unpack(entry))
  emitted, notes, done_block, done_n, done_stale = {}, {}, '', 0, {}
end

-- Number of events up to and including an entry, and in it.
function q.counts_of(entry)
  local total, n = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(total), tonumber(n)
end
function q.events_waiting() return q.clock_of('events') - q.clock_of('trimmed') end

local TRIM_ENTRIES = 10000

-- Trim the entries before an id. Of many entries only some, and the next call trims more.
function q.trim_events(first)
  if q.counts_of(first) - q.clock_of('trimmed') > TRIM_ENTRIES and call('XLEN', keys.events) > TRIM_ENTRIES then
    call('XTRIM', keys.events, 'MINID', '~', first, 'LIMIT', TRIM_ENTRIES)
  else
    call('XTRIM', keys.events, 'MINID', first)
  end
  local left = call('XRANGE', keys.events, '-', '+', 'COUNT', 1)[1]
  local trimmed = q.clock_of('events')
  if left then
    local total, n = q.counts_of(left[1])
    trimmed = total - n
  end
  q.set_clock('trimmed', trimmed)
end

-- History: the newest ended jobs. Scripts that claim pass how many are kept.
local failed, kept_done, kept_failed = {}, 0, 0
function q.keep_last(n_done, n_failed) kept_done, kept_failed = tonumber(n_done), tonumber(n_failed) end
function q.log_failed(packed) failed[#failed + 1] = packed end

-- Append a block: number of events, time, bytes of the stale indexes, these, events. It is removed once as many events
-- as are kept follow it.
function q.log_done(block, n, stale)
  if n == 0 then return end
  if kept_done == 0 then
    call('DEL', keys['log:done'])
    q.set_clock('logged', 0)
    return
  end
  local missing = #stale > 0 and cmsgpack.pack(stale) or ''
  call('RPUSH', keys['log:done'], struct.pack('<I4dI4', n, now_ms, #missing) .. missing .. block)
  local logged = q.clock_of('logged') + n
  while true do
    local oldest = struct.unpack('<I4', call('LINDEX', keys['log:done'], 0))
    if logged - oldest < kept_done then break end
    call('LPOP', keys['log:done'])
    logged = logged - oldest
  end
  q.set_clock('logged', logged)
end

function q.write_failed()
  if #failed == 0 then return end
  q.call_many('RPUSH', keys['log:failed'], failed)
  call('LTRIM', keys['log:failed'], kept_failed > 0 and -kept_failed or 1, kept_failed > 0 and -1 or 0)
  failed = {}
end
