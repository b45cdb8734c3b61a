-- Ends one hold exactly once, whoever asks: gateway, its journal's replay, or the sweeper.
-- KEYS: settled marker, hold, holds, account, bucket, usage stream
-- ARGV: request id, charge in nano-dollars, tokens used, usage event JSON ('' voids), marker's life in seconds
-- Returns 1 when this call settled it, 0 when it was settled before.
-- Amounts are added by HINCRBY from their text: exact in 64 bits, never through Lua's doubles.
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[5]) then
  return 0
end
local hold = redis.call('HMGET', KEYS[2], 'amount_nano', 'tokens')
if hold[1] then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('HINCRBY', KEYS[4], 'held', '-' .. hold[1])
  if redis.call('HINCRBY', KEYS[4], 'inflight', -1) < 0 then
    redis.call('HSET', KEYS[4], 'inflight', 0)
  end
  if redis.call('HINCRBY', KEYS[5], 'inflight', -1) < 0 then
    redis.call('HSET', KEYS[5], 'inflight', 0)
  end
  local unused = (tonumber(hold[2]) or 0) - tonumber(ARGV[3])
  if unused > 0 then
    redis.call('HINCRBYFLOAT', KEYS[5], 'tokens', unused)
  end
end
if ARGV[4] ~= '' then
  redis.call('HINCRBY', KEYS[4], 'pending', ARGV[2])
  redis.call('XADD', KEYS[6], '*', 'event', ARGV[4])
end
return 1
