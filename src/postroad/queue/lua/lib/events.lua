-- Events: what happened to jobs. All of one script are one entry of the stream, whose id is the number of events so far,
-- a dash, and the number of those in it. The fields of an entry:
--   a  now, ms
--   d  events of jobs that ended well, as the worker packed them: [[id, token, attempt, claim, note], ...]
--   s  msgpack [index, ...] of those that did not happen: their leases were somebody else's
--   e  msgpack of all others: [[kind, id, token, at_ms, attempt, claim, next_ms, cause, error, octets of its note], ...]
--   n  their notes, one behind the other

local told, notes = {}, {}
local done_block, done_n, done_stale = '', 0, {}

-- Tell of one; returns it packed.
function q.emit(kind, e)
  local note = e.note or ''
  local packed = cmsgpack.pack({
    kind, e.id, e.token, now_ms, e.attempt or 0, e.claim or 0, e.next_ms or 0, e.cause or '', e.error or '', #note,
  })
  told[#told + 1], notes[#notes + 1] = packed, note
  return packed
end

-- Tell of all that ended well at once. `stale`: places in the block, from 0, of what did not.
function q.emit_done(block, n, stale)
  done_block, done_n, done_stale = block, n, stale
end

function q.array_of(packed)
  return struct.pack('>BI4', 0xdd, #packed) .. table.concat(packed)
end

function q.write_events()
  local n = #told + done_n
  if n == 0 then return end
  local total = q.clock_of('events') + n
  q.set_clock('events', total)
  local entry = { 'a', q.int(now_ms) }
  local function add(field, value) entry[#entry + 1], entry[#entry + 2] = field, value end
  if done_n > 0 then add('d', done_block) end
  if #done_stale > 0 then add('s', cmsgpack.pack(done_stale)) end
  if #told > 0 then
    add('e', q.array_of(told))
    add('n', table.concat(notes))
  end
  call('XADD', keys.events, q.int(total) .. '-' .. n, unpack(entry))
  told, notes, done_block, done_n, done_stale = {}, {}, '', 0, {}
end

-- Number of events up to an entry, itself included, and of those in it.
function q.counts_of(entry)
  local total, n = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(total), tonumber(n)
end
function q.events_waiting() return q.clock_of('events') - q.clock_of('trimmed') end

local TRIM_ENTRIES = 10000

-- Trim what stands before an entry's id; of a stream of many entries only the beginning, and the next call trims more.
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

-- History: the newest of what ended. Scripts that end jobs by a claim say how much of it is kept.
local failed, kept_done, kept_failed = {}, 0, 0
function q.keep_last(n_done, n_failed) kept_done, kept_failed = tonumber(n_done), tonumber(n_failed) end
function q.log_failed(packed) failed[#failed + 1] = packed end

-- Its number of events, now, the octets of what is stale in it, this, and the block, which stays until as many as are
-- kept stand behind it.
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
