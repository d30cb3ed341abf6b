-- Acknowledge events, forget ids whose outcome is recorded, and trim the stream behind the slowest group.
-- uses     base lanes gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms   empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  entries  msgpack [stream entry id, ...]
-- ARGV[4]  ids      msgpack [job id, ...] to forget
-- ARGV[5]  gone_ms  a consumer that owes nothing and was not seen for so long is forgotten
-- returns  how many events were trimmed
-- cost     O(n log R)

local entries, ids = cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
for from = 1, #entries, 2000 do
  call('XACK', EVENTS, ARGV[2], unpack(entries, from, math.min(from + 1999, #entries)))
end
call_many('ZREM', REMEMBERED, ids)
local tidy = now_ms - clock_of('tidied') >= 60000
if tidy then set_clock('tidied', now_ms) end
finish()
if call('EXISTS', EVENTS) == 0 then return 0 end

if tidy then
  local left = 100
  -- A group that never read anything is an error here, and a table without items.
  for _, info in ipairs(redis.pcall('XINFO', 'CONSUMERS', EVENTS, ARGV[2])) do
    local consumer = {}
    for i = 1, #info, 2 do consumer[info[i]] = info[i + 1] end
    if left > 0 and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[5]) then
      call('XGROUP', 'DELCONSUMER', EVENTS, ARGV[2], consumer.name)
      left = left - 1
    end
  end
end

local function parts(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end
local function after(entry)
  local ms, seq = parts(entry)
  return int(ms) .. '-' .. int(seq + 1)
end

-- The first entry that some group has still to see or to acknowledge.
local first
for _, info in ipairs(call('XINFO', 'GROUPS', EVENTS)) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  local needs = after(group['last-delivered-id'])
  if group.pending > 0 then needs = call('XPENDING', EVENTS, group.name)[2] end
  if not first or before(needs, first) then first = needs end
end
return first and call('XTRIM', EVENTS, 'MINID', first) or 0
