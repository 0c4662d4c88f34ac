"""The scripts of the Redis store: each runs on the server as one atomic step.

Integers come and go as texts, because Lua's numbers are doubles and print as ``1e+15``. All names start with
the same ``{tag}``, so that they lie in one slot.
"""

from __future__ import annotations

__all__ = ["AGAIN", "APPEND", "DUE", "KEYS", "MIGRATE", "RELEASE", "RESERVE", "RUNS", "SETTLE", "SWAP"]

# KEYS log, index of keys, runs; ARGV run, key, at, length known, last hash known, new item.
# {1}: written; {0, item}: the key is there already; {2, length, last item}: the chain is longer than you know
APPEND = """
local there = redis.call('HGET', KEYS[2], ARGV[2])
if there then return {0, redis.call('LINDEX', KEYS[1], there)} end
local length = redis.call('LLEN', KEYS[1])
local last = length > 0 and redis.call('LINDEX', KEYS[1], -1) or ''
if length ~= tonumber(ARGV[4]) or string.sub(last, 1, 64) ~= ARGV[5] then return {2, length, last} end
redis.call('RPUSH', KEYS[1], ARGV[6])
redis.call('HSET', KEYS[2], ARGV[2], length)
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return {1}
"""

# KEYS runs; ARGV prefix of logs, limit. The score is the negative time: ties then come in order of their names
RUNS = """
local found = {}
for _, run in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1)) do
  local log = ARGV[1] .. run
  found[#found + 1] = {run, redis.call('LINDEX', log, 0), redis.call('LINDEX', log, -1), redis.call('LLEN', log)}
end
return found
"""

AGAIN = [b"again"]

# KEYS prefix of holds by key, times of holds, used, reserved
# ARGV key, expires, what is older is forgotten, then for each scope: its name, amount, most that it may have used.
# {}: held; {'again'}: the key was used before; else what each scope has used, at least one of them more than its most.
# `used` counts holds from the start
RESERVE = """
local key = ARGV[1]
if redis.call('SISMEMBER', KEYS[4], key) == 1 then return {'again'} end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[3], 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], old)
  redis.call('DEL', KEYS[1] .. old)
end
local taken, full = {}, false
for i = 4, #ARGV, 3 do
  local used = redis.call('HGET', KEYS[3], ARGV[i]) or '0'
  taken[#taken + 1] = used
  full = full or tonumber(used) > tonumber(ARGV[i + 2])
end
if full then return taken end
redis.call('SADD', KEYS[4], key)
for i = 4, #ARGV, 3 do
  redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[1] .. key, ARGV[i], ARGV[i + 1])
end
if #ARGV > 3 then redis.call('ZADD', KEYS[2], ARGV[2], key) end
return {}
"""

_CLOSE = """
local function close(key)
  local hold = redis.call('HGETALL', KEYS[1] .. key)
  if #hold > 0 then
    redis.call('ZREM', KEYS[2], key)
    redis.call('DEL', KEYS[1] .. key)
  end
  return hold
end
"""

# KEYS as for RESERVE; ARGV key, then unit and amount in turn
SETTLE = (
    _CLOSE
    + """
local hold = close(ARGV[1])
local amounts = {}
for i = 2, #ARGV, 2 do amounts[ARGV[i]] = ARGV[i + 1] end
for i = 1, #hold, 2 do
  local really = amounts[string.match(hold[i], '([^:]*)$')] or '0'
  redis.call('HINCRBY', KEYS[3], hold[i], string.format('%d', tonumber(really) - tonumber(hold[i + 1])))
end
return #hold
"""
)

# KEYS as for RESERVE; ARGV key
RELEASE = (
    _CLOSE
    + """
local hold = close(ARGV[1])
for i = 1, #hold, 2 do
  redis.call('HINCRBY', KEYS[3], hold[i], string.format('%d', -tonumber(hold[i + 1])))
end
if #hold > 0 then redis.call('SREM', KEYS[4], ARGV[1]) end
return #hold
"""
)

# KEYS values, names, ages, due, last age; ARGV key, expected given, expected, new given, new, due
SWAP = """
local key = ARGV[1]
local there = redis.call('HGET', KEYS[1], key)
if (there or false) ~= (ARGV[2] == '1' and ARGV[3] or false) then return 0 end
if ARGV[4] == '1' then
  if not there then
    redis.call('ZADD', KEYS[2], 0, key)
    redis.call('HSET', KEYS[3], key, redis.call('INCR', KEYS[5]))
  end
  redis.call('HSET', KEYS[1], key, ARGV[5])
  if ARGV[6] == '' then redis.call('ZREM', KEYS[4], key) else redis.call('ZADD', KEYS[4], ARGV[6], key) end
elseif there then
  redis.call('HDEL', KEYS[1], key)
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[4], key)
end
return 1
"""

# KEYS names, ages; ARGV first and last of the range, as ZRANGEBYLEX writes them. Names and ages in turn
KEYS = """
local found = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', KEYS[2], key)
end
return found
"""

# KEYS due, ages; ARGV prefix, latest time. Names, times and ages in turn
DUE = """
local found, rows = {}, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'WITHSCORES')
for i = 1, #rows, 2 do
  if string.sub(rows[i], 1, #ARGV[1]) == ARGV[1] then
    found[#found + 1] = rows[i]
    found[#found + 1] = rows[i + 1]
    found[#found + 1] = redis.call('HGET', KEYS[2], rows[i])
  end
end
return found
"""

# KEYS version; ARGV newest version. The version found, after raising an older one: there is no data to change yet
MIGRATE = """
local found = tonumber(redis.call('GET', KEYS[1]) or '0')
if found < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return found
"""
