-- Ends one hold exactly once, whoever asks: gateway, its journal's replay, or the sweeper.
-- KEYS: settled marker, hold, holds, account, bucket, usage stream
-- ARGV: request id, charge in nano-dollars, tokens used, usage event JSON ('' voids), marker's life in seconds,
--       account key prefix, bucket key prefix
-- Returns 1 when this call settled it, 0 when it was settled before.
-- A hold knows whose it is; KEYS' account and bucket count only when Redis lost it.
-- Amounts are added by HINCRBY from their text: exact in 64 bits, never through Lua's doubles.
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[5]) then
  return 0
end
local hold = redis.call('HMGET', KEYS[2], 'amount_nano', 'tokens', 'released', 'tenant_id', 'key_id')
if hold[1] then
  local account, bucket = ARGV[6] .. hold[4], ARGV[7] .. hold[5]
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('HINCRBY', account, 'held', '-' .. hold[1])
  if not hold[3] then
    for _, place in ipairs({account, bucket}) do
      if redis.call('HINCRBY', place, 'inflight', -1) < 0 then
        redis.call('HSET', place, 'inflight', 0)
      end
    end
    local unused = (tonumber(hold[2]) or 0) - tonumber(ARGV[3])
    if unused > 0 then
      redis.call('HINCRBYFLOAT', bucket, 'tokens', unused)
    end
  end
end
if ARGV[4] ~= '' then
  redis.call('HINCRBY', KEYS[4], 'pending', ARGV[2])
  redis.call('XADD', KEYS[6], '*', 'event', ARGV[4])
end
return 1
