-- Who may send, and when: reservations of a limit that processes on any number of machines share.
--
-- KEYS[1] is a hash. `gen` and `turn` tell one life of it from another and one call from the next; `server` is the
-- server that wrote it; `next` is when the next request's turn is; `blocked` until when nothing may be sent because what
-- was sent before is not known; `members` are the processes at work. Each number N is a bin: so many requests that the
-- service can have received by N * width at the latest. Those of bins up to `cut` have passed, `held` are in the others.
-- All times are microseconds of this server's clock.
--
-- A slot is granted for a moment `due` only where the requests that end later than one window before `due` leave room
-- for it. It counts until the end that it can have at most, and until its true end once that is reported. So no window
-- holds more than the limit, whatever the network does and whoever dies: `pacing/reservations.py` has the proof.
local SCHEDULED = 0.98 -- of the limit at most
local BINS_A_WINDOW, FINEST = 512, 1000
local CREDIT = 250000 -- unused pace that may be caught up
local STALE = 10000000 -- without a sign of it a process is not at work: it was killed, or is cut off
local SET_BACK = 1000000 -- a clock that was set back by more than this means nothing any more
local MANY = 2000 -- bins that passed since the last question: to read the hash whole is cheaper then
local KEPT = 30 * 86400 * 1000 -- milliseconds that a workspace to which nobody sends is remembered

local key, me, known, known_turn = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, per, hold, tail = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local share, away = tonumber(ARGV[8]), tonumber(ARGV[9])
local want, quiet, again = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]

local function text(number) return string.format('%.0f', number) end

local function server_id()
  local told = redis.pcall('INFO', 'server')
  return type(told) == 'string' and string.match(told, 'run_id:(%w+)') or 'unknown'
end

local clock = redis.call('TIME')
local told = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local width = math.max(FINEST, math.ceil(per / BINS_A_WINDOW))
local horizon = math.max(math.floor(per / 12), 1000000)
local server = server_id()

local names = {'gen', 'turn', 'server', 'per', 'cut', 'held', 'newest', 'next', 'at', 'born', 'blocked', 'members'}
local stored, s = redis.call('HMGET', key, unpack(names)), {}
for at, name in ipairs(names) do s[name] = stored[at] or nil end
local whole_hash, members = pcall(cjson.decode, s.members or '')
for _, name in ipairs({'turn', 'per', 'cut', 'held', 'newest', 'next', 'at', 'born', 'blocked'}) do
  s[name] = tonumber(s[name])
  whole_hash = whole_hash and s[name] ~= nil
end
if not (whole_hash and type(members) == 'table') then s, members = {}, {} end -- somebody else wrote there
local now = math.max(told, s.at or 0)

local function is_live(member) return now - member.seen * 1000 <= STALE end

-- is it still what it was? -------------------------------------------------------------------------------------------
local why = ''
if not s.gen then why = 'empty'
elseif s.server ~= server then why = 'restarted'
elseif known == s.gen and s.turn < known_turn then why = 'set back'
elseif known == s.gen and again ~= '' then why = again
elseif told < s.at - SET_BACK then why = 'clock'
elseif s.per ~= per then
  local kept
  for id, member in pairs(members) do
    if id ~= me and is_live(member) then kept = math.min(kept or member.limit, member.limit) end
  end
  if kept then return {'per', text(told), s.gen, text(s.turn), '', text(s.per), text(kept)} end
  why = 'per'
end
if why ~= '' then
  local whole = hold + tail
  for _, member in pairs(members) do whole = math.max(whole, hold + member.tail) end
  local blocked = told + whole + horizon
  if why == 'per' then blocked = math.max(s.blocked, s.newest * math.max(FINEST, math.ceil(s.per / BINS_A_WINDOW)) + hold) end
  members, now = {}, told
  s = {gen = me .. '.' .. text(told), turn = 0, cut = math.floor((told - CREDIT - hold) / width), held = 0, newest = 0,
    next = told, born = told, blocked = blocked}
end
if known ~= '' and known ~= s.gen and quiet >= 0 then -- it sent what this life of the hash knows nothing of
  s.blocked = math.max(s.blocked, now - quiet + hold + tail)
end

-- bins ---------------------------------------------------------------------------------------------------------------
-- Everything is read first and written at the end, the numbers before anything is removed: where the memory is full,
-- nothing has happened.
local bins, changed, gone = {}, {}, {} -- `bins` are those that were read or changed
local function read(first, last)
  if why ~= '' then
    for bin = first, last do bins[bin] = bins[bin] or 0 end
    return
  end
  for from = first, last, 1000 do
    local wanted = {}
    for bin = from, math.min(last, from + 999) do wanted[#wanted + 1] = text(bin) end
    local found = redis.call('HMGET', key, unpack(wanted))
    for at, count in ipairs(found) do
      local bin = from + at - 1
      if not changed[bin] then bins[bin] = tonumber(count or 0) or 0 end
    end
  end
end

local passed = math.floor((now - CREDIT - hold) / width)
if passed > s.cut then
  local last = math.min(passed, s.newest)
  if last - s.cut > MANY then
    local all = redis.call('HGETALL', key)
    for at = 1, #all, 2 do
      local bin = tonumber(all[at])
      if bin and bin <= last then bins[bin] = tonumber(all[at + 1]); gone[#gone + 1] = bin end
    end
  elseif last > s.cut then
    read(s.cut + 1, last)
    for bin = s.cut + 1, last do if bins[bin] > 0 then gone[#gone + 1] = bin end end
  end
  for _, bin in ipairs(gone) do s.held = s.held - bins[bin] end
  s.cut = passed
end

local function change(bin, by)
  if bin <= s.cut then return end
  if not bins[bin] then read(bin, bin) end
  local before = bins[bin]
  bins[bin], changed[bin] = math.max(0, before + by), true
  s.held, s.newest = s.held + bins[bin] - before, math.max(s.newest, bin)
end

-- what the caller has to tell: which of its requests end when; once, however often it says so -------------------------
local heard, unused, at = members[me] and members[me].report or 0, 0, 13
while at < #ARGV do -- a report: its number, how many slots came to nothing, how many bins follow, each with its change
  local report, pairs_end = tonumber(ARGV[at]), at + 2 + 2 * tonumber(ARGV[at + 2])
  if report > heard then
    heard, unused = report, unused + tonumber(ARGV[at + 1])
    for each = at + 3, pairs_end, 2 do
      local bin, by = tonumber(ARGV[each]), tonumber(ARGV[each + 1])
      if by > 0 or known == s.gen then change(bin, by) end
    end
  end
  at = pairs_end + 1
end

-- who is at work, and what is left for them ---------------------------------------------------------------------------
if want < 0 then -- it leaves
  members[me] = nil
else
  local joined = members[me] and members[me].joined or math.floor(now / 1000)
  members[me] = {limit = limit, tail = tail, share = share, away = away, seen = math.floor(now / 1000),
    joined = joined, report = heard}
end
-- A member is remembered until everything that it can have sent has passed. One that is cut off may send a share of its
-- own until then, as long as no more than `share` are at work: those that were heard before and after a moment which lies
-- as far back as somebody may be silent were at work then, and leave so many fewer. A hash that lost its memory does not
-- know who may be cut off.
local base, longest, peers, steady, silent, most, biggest = limit, tail, 0, 0, 0, 0, 0
for id, member in pairs(members) do
  local lasts = member.away + horizon + hold + member.tail
  if is_live(member) then
    base, longest, peers = math.min(base, member.limit), math.max(longest, member.tail), peers + 1
    if now - member.joined * 1000 >= STALE then steady = steady + 1 end
  elseif now < member.seen * 1000 + lasts then
    if member.share > 0 then
      local part = math.ceil(member.limit / member.share)
      silent, most, biggest = silent + part, math.max(most, member.share), math.max(biggest, part)
    end
  else
    members[id] = nil
  end
end
local reserved = math.min(silent, math.max(0, most - steady) * biggest)
for _, member in pairs(members) do
  if member.share > 0 and now < s.born + member.away + horizon + hold + member.tail then
    reserved = math.max(reserved, (member.share - steady) * math.ceil(member.limit / member.share))
  end
end
local cap = math.max(0, base - reserved)

-- grant --------------------------------------------------------------------------------------------------------------
local step = per / (SCHEDULED * math.max(1, cap))
local far = now + horizon
local start = math.max(s.next - unused * step, now - CREDIT)
s.next = start
local due, retry = math.max(start, s.blocked), now + math.floor(horizon / 4)
local runs, granted = {}, 0
if want > 0 and cap > 0 and due > far then
  retry = math.ceil(due) - math.floor(horizon / 2)
elseif want > 0 and cap > 0 then
  local last = math.floor((far - hold) / width)
  read(s.cut + 1, last)
  local edge, ending = s.cut, s.held
  while granted < want and due <= far do
    local to = math.min(last, math.floor((due - hold) / width))
    while edge < to do
      edge = edge + 1
      ending = ending - bins[edge]
    end
    local room = cap - ending - granted
    if room > 0 then
      local number = math.min(room, want - granted, math.floor((far - due) / step) + 1)
      local final = due + (number - 1) * step
      local bin = math.ceil((final + tail) / width)
      for _, each in ipairs({math.ceil(due), math.ceil(final), number, bin}) do runs[#runs + 1] = text(each) end
      change(bin, number)
      granted, due = granted + number, due + number * step
      s.next = due
    else -- the next moment at which some have passed
      edge = edge + 1
      while edge < last and bins[edge] == 0 do edge = edge + 1 end
      due = edge <= last and math.max(due, edge * width + hold) or far + 1
      if edge <= last then ending = ending - bins[edge] end
    end
  end
end

if why ~= '' then redis.call('DEL', key) end
local written = {'gen', s.gen, 'turn', text(s.turn + 1), 'server', server, 'per', text(per), 'cut', text(s.cut),
  'held', text(s.held), 'newest', text(s.newest), 'next', text(s.next), 'at', text(now), 'born', text(s.born),
  'blocked', text(s.blocked), 'members', cjson.encode(members)}
for bin in pairs(changed) do
  if bins[bin] > 0 then
    written[#written + 1], written[#written + 2] = text(bin), text(bins[bin])
  else
    gone[#gone + 1] = bin
  end
end
for from = 1, #written, 1000 do redis.call('HSET', key, unpack(written, from, math.min(#written, from + 999))) end
for from = 1, #gone, 1000 do
  local fields = {}
  for at = from, math.min(#gone, from + 999) do fields[#fields + 1] = text(gone[at]) end
  redis.call('HDEL', key, unpack(fields))
end
redis.call('PEXPIRE', key, KEPT)
local reply = {'ok', text(told), s.gen, text(s.turn + 1), why}
for _, each in ipairs({width, cap, peers, s.blocked, retry, longest}) do reply[#reply + 1] = text(each) end
for _, each in ipairs(runs) do reply[#reply + 1] = each end
return reply
