-- Acknowledge events, forget ids whose outcome is recorded, and trim the stream after the slowest group.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms   empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  entries  msgpack [stream entry id, ...]
-- ARGV[4]  ids      msgpack [job id, ...] to forget
-- ARGV[5]  gone_ms  an idle consumer without pending events is deleted after this time
-- returns  how many events were trimmed
-- cost     O(n log R)

local entries, ids = cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
for from = 1, #entries, 2000 do
  call('XACK', keys.events, ARGV[2], unpack(entries, from, math.min(from + 1999, #entries)))
end
q.call_many('HDEL', keys.remembered, ids)

-- Delete idle consumers, once a minute.
local function tidy()
  local left = 100
  -- A group that never read anything is an error here, and a table without items.
  for _, info in ipairs(redis.pcall('XINFO', 'CONSUMERS', keys.events, ARGV[2])) do
    local consumer = {}
    for i = 1, #info, 2 do consumer[info[i]] = info[i + 1] end
    if left > 0 and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[5]) then
      call('XGROUP', 'DELCONSUMER', keys.events, ARGV[2], consumer.name)
      left = left - 1
    end
  end
end

-- The first entry that a group has not read or not acknowledged.
local function first_needed()
  local first, first_total
  for _, info in ipairs(call('XINFO', 'GROUPS', keys.events)) do
    local group = {}
    for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
    local total, n = q.counts_of(group['last-delivered-id'])
    local needs = q.int(total) .. '-' .. q.int(n + 1)
    if group.pending > 0 then
      needs = call('XPENDING', keys.events, group.name)[2]
      total = q.counts_of(needs) - 1
    end
    if not first or total < first_total then first, first_total = needs, total end
  end
  return first
end

local before = q.events_waiting()
if call('EXISTS', keys.events) == 1 then
  if now_ms - q.clock_of('tidied') >= 60000 then
    q.set_clock('tidied', now_ms)
    tidy()
  end
  local first = first_needed()
  if first then q.trim_events(first) end
end
local trimmed = before - q.events_waiting()
q.finish()
return trimmed
